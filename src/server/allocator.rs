//! Memory from the server's own allocator, so that it counts in `used_memory` and obeys `maxmemory`.

use std::alloc::{GlobalAlloc, Layout, System};

use redis_module::raw;

#[global_allocator]
static ALLOCATOR: Server = Server;

struct Server;

/// The alignment that every server's allocator guarantees. It is not 16: a server that was built with the C library's malloc
/// puts a length of 8 bytes before each allocation.
const ALIGN: usize = 8;

// SAFETY: the server's functions keep the contract of malloc. `RedisModule_OnLoad` binds them before it does anything else.
// Nothing is allocated before that, so no memory of one allocator is freed by the other. Without a server (tests of the
// core link this file too) they are never bound.
unsafe impl GlobalAlloc for Server {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match unsafe { raw::RedisModule_Alloc } {
            Some(alloc) if layout.align() <= ALIGN => unsafe { alloc(layout.size()) }.cast(),
            Some(alloc) => unsafe { align(alloc(with_room(layout)).cast(), layout) },
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match unsafe { raw::RedisModule_Calloc } {
            Some(calloc) if layout.align() <= ALIGN => unsafe { calloc(1, layout.size()) }.cast(),
            Some(calloc) => unsafe { align(calloc(1, with_room(layout)).cast(), layout) },
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        match unsafe { raw::RedisModule_Free } {
            Some(free) if layout.align() <= ALIGN => unsafe { free(memory.cast()) },
            Some(free) => unsafe { free(given(memory).cast()) },
            None => unsafe { System.dealloc(memory, layout) },
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match unsafe { raw::RedisModule_Realloc } {
            Some(realloc) if layout.align() <= ALIGN => {
                unsafe { realloc(memory.cast(), size) }.cast()
            }
            Some(_) => unsafe { move_to(self, memory, layout, size) },
            None => unsafe { System.realloc(memory, layout, size) },
        }
    }
}

/// The size to allocate, so that a stricter alignment fits in.
fn with_room(layout: Layout) -> usize {
    layout.size() + layout.align()
}

/// The first aligned address behind `given`, the server's allocation. The word right before that address holds `given`.
unsafe fn align(given: *mut u8, layout: Layout) -> *mut u8 {
    if given.is_null() {
        return given;
    }
    // It is from ALIGN to `align` bytes ahead, because `given` is a multiple of ALIGN.
    let ahead = layout.align() - given.addr() % layout.align();
    unsafe {
        let memory = given.add(ahead);
        memory.cast::<*mut u8>().sub(1).write(given);
        memory
    }
}

/// The server's allocation that [`align`] turned into `memory`.
unsafe fn given(memory: *mut u8) -> *mut u8 {
    unsafe { memory.cast::<*mut u8>().sub(1).read() }
}

/// Moves an allocation by hand: the server's realloc would lose its alignment.
unsafe fn move_to(from: &Server, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
    unsafe {
        let moved = from.alloc(Layout::from_size_align_unchecked(size, layout.align()));
        if !moved.is_null() {
            moved.copy_from_nonoverlapping(memory, layout.size().min(size));
            from.dealloc(memory, layout);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_aligned_to_eight_can_be_aligned_to_more() {
        for to in [16, 32, 64, 4096] {
            let layout = Layout::from_size_align(100, to).unwrap();
            let mut memory = vec![0u64; with_room(layout) / 8 + 2];
            for offset in 0..2 {
                let from: *mut u8 = unsafe { memory.as_mut_ptr().add(offset) }.cast();
                let aligned = unsafe { align(from, layout) };
                assert_eq!(aligned.addr() % to, 0);
                assert_eq!(unsafe { given(aligned) }, from);
                assert!(aligned.addr() - from.addr() <= to);
            }
        }
        let layout = Layout::from_size_align(1, 16).unwrap();
        assert!(unsafe { align(std::ptr::null_mut(), layout) }.is_null());
    }
}

//! Memory from the server's own allocator, so that it counts in `used_memory` and obeys `maxmemory`.

use std::alloc::{GlobalAlloc, Layout, System};

use redis_module::raw;

#[global_allocator]
static ALLOCATOR: Server = Server;

struct Server;

/// What every server's allocator aligns to. Not 16: a server that was built on the C library's malloc puts a length of 8 bytes
/// before what it gives.
const ALIGN: usize = 8;

// SAFETY: the functions of the server are those of malloc. Nothing is allocated before they are bound, which is the
// first thing that `RedisModule_OnLoad` does, so nothing of one allocator is given back to the other. Where there is no
// server at all (tests of the core link this file too) they are never bound.
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

/// How much to ask for, so that a stricter alignment fits in.
fn with_room(layout: Layout) -> usize {
    layout.size() + layout.align()
}

/// The first aligned address behind what the server gave, which is noted right before it.
unsafe fn align(given: *mut u8, layout: Layout) -> *mut u8 {
    if given.is_null() {
        return given;
    }
    // From ALIGN to `align` bytes farther, because `given` is a multiple of ALIGN.
    let ahead = layout.align() - given.addr() % layout.align();
    unsafe {
        let memory = given.add(ahead);
        memory.cast::<*mut u8>().sub(1).write(given);
        memory
    }
}

/// What the server gave where [`align`] moved it.
unsafe fn given(memory: *mut u8) -> *mut u8 {
    unsafe { memory.cast::<*mut u8>().sub(1).read() }
}

/// The server's realloc would move the bytes without their alignment.
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
    fn what_is_aligned_to_eight_can_be_aligned_to_more() {
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

//! Memory from the server's own allocator, so that it counts in `used_memory` and obeys `maxmemory`.

use std::alloc::{GlobalAlloc, Layout, System};

use redis_module::raw;

#[global_allocator]
static ALLOCATOR: Server = Server;

struct Server;

/// What the server's allocators align to. Rust asks for more only where a type demands it, which none here does.
const ALIGN: usize = 16;

// SAFETY: the functions of the server are those of malloc. Nothing is allocated before they are bound, which is the
// first thing that `RedisModule_OnLoad` does, so nothing of one allocator is given back to the other. Where there is no
// server at all (tests of the core link this file too) they are never bound.
unsafe impl GlobalAlloc for Server {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match unsafe { raw::RedisModule_Alloc } {
            Some(alloc) if layout.align() <= ALIGN => unsafe { alloc(layout.size()) }.cast(),
            // An address that the allocator cannot give: Rust reports the failure.
            Some(_) => std::ptr::null_mut(),
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match unsafe { raw::RedisModule_Calloc } {
            Some(calloc) if layout.align() <= ALIGN => unsafe { calloc(1, layout.size()) }.cast(),
            Some(_) => std::ptr::null_mut(),
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        match unsafe { raw::RedisModule_Free } {
            Some(free) => unsafe { free(memory.cast()) },
            None => unsafe { System.dealloc(memory, layout) },
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match unsafe { raw::RedisModule_Realloc } {
            Some(realloc) => unsafe { realloc(memory.cast(), size) }.cast(),
            None => unsafe { System.realloc(memory, layout, size) },
        }
    }
}

//! Active defragmentation: moves the buffers of a pool to addresses that the server's allocator prefers.

use std::mem::{ManuallyDrop, take};
use std::os::raw::{c_int, c_ulong, c_void};
use std::ptr;

use redis_module::raw;

use super::guard::guarded;
use super::info;
use super::value::Value;
use crate::lb::{Mover, Pool, Slot};

/// One turn of the defragmentation of one pool.
struct Defrag(*mut raw::RedisModuleDefragCtx);

/// The number of names to handle between two checks of the time.
const BATCH: usize = 64;

/// The server calls this for each pool, and calls it again while it returns 1.
pub unsafe extern "C" fn defrag(
    ctx: *mut raw::RedisModuleDefragCtx,
    _key: *mut raw::RedisModuleString,
    value: *mut *mut c_void,
) -> c_int {
    let mut defrag = Defrag(ctx);
    let is_done = guarded("moving a pool", || {
        // The cursor is the slot to continue from. A pool that is small enough for one turn has no cursor.
        let mut from: c_ulong = 0;
        let is_resumed = api!(RedisModule_DefragCursorGet(ctx, &mut from)) == 0 && from > 0;
        // SAFETY: `value` is the server's own pointer to the value, and there is no other reference to the value now.
        unsafe {
            if !is_resumed && let Some(moved) = defrag.moved((*value).cast::<Value>()) {
                *value = moved.cast();
            }
            match &mut *(*value).cast::<Value>() {
                Value::Pool(pool, _) => {
                    if !is_resumed {
                        pool.relocate(&mut defrag);
                    }
                    defrag.names(pool, from as Slot)
                }
                Value::Poisoned => true,
            }
        }
    });
    c_int::from(!is_done.unwrap_or_else(|| {
        // The panic may have come after the server freed a buffer and before the pool had its new address.
        // SAFETY: as above. The old value is forgotten, not dropped.
        unsafe { (*value).cast::<Value>().write(Value::Poisoned) };
        info::POISONED.count();
        true
    }))
}

impl Defrag {
    /// Moves the names from slot `from` on; false if the time was up before the last one.
    fn names(&mut self, pool: &mut Pool, mut from: Slot) -> bool {
        while let Some(next) = pool.relocate_names(self, from, BATCH) {
            from = next;
            let is_late = api!(RedisModule_DefragShouldStop(self.0)) != 0;
            if is_late && api!(RedisModule_DefragCursorSet(self.0, from as c_ulong)) == 0 {
                return false;
            }
        }
        true
    }

    /// The new address of the buffer, if the server has moved it.
    ///
    /// # Safety
    /// `buffer` must be one allocation of the server's, and the caller must forget the old address.
    unsafe fn moved<T>(&mut self, buffer: *mut T) -> Option<*mut T> {
        // An allocation with a stricter alignment does not begin at the address that the server gave (see `allocator`).
        const { assert!(align_of::<T>() <= 8) };
        let moved: *mut T = api!(RedisModule_DefragAlloc(self.0, buffer.cast())).cast();
        (!moved.is_null()).then_some(moved)
    }
}

impl Mover for Defrag {
    fn vec<T>(&mut self, buffer: &mut Vec<T>) {
        if buffer.capacity() == 0 {
            return;
        }
        let mut old = ManuallyDrop::new(take(buffer));
        let (start, len, capacity) = (old.as_mut_ptr(), old.len(), old.capacity());
        // SAFETY: the buffer was taken out of the `Vec`. It is put back at its old address or the new one, and the server
        // copies its whole capacity.
        unsafe {
            let start = self.moved(start).unwrap_or(start);
            *buffer = Vec::from_raw_parts(start, len, capacity);
        }
    }

    fn bytes(&mut self, buffer: &mut Box<[u8]>) {
        if buffer.is_empty() {
            return;
        }
        let old = Box::into_raw(take(buffer));
        // SAFETY: as above.
        unsafe {
            let start = self.moved(old.cast::<u8>()).unwrap_or(old.cast());
            *buffer = Box::from_raw(ptr::slice_from_raw_parts_mut(start, old.len()));
        }
    }
}

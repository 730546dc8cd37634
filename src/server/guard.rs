//! Stops panics: unwinding into the server would abort it.

use std::any::Any;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use redis_module::raw;

/// Runs `run`, the body of a callback named `what`. A panic gives `None` and is logged.
///
/// If `run` uses a pool, the caller must make sure that a panic poisons the pool ([`super::value::Value::Poisoned`]).
pub fn guarded<T>(what: &str, run: impl FnOnce() -> T) -> Option<T> {
    let struck = || {
        #[cfg(feature = "faults")]
        fault::strike(what);
        run()
    };
    match catch_unwind(AssertUnwindSafe(struck)) {
        Ok(value) => Some(value),
        Err(panic) => {
            report(what, panic);
            None
        }
    }
}

#[cold]
fn report(what: &str, panic: Box<dyn Any + Send>) {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied());
    log(&format!("bug: {what} panicked: {}", text.unwrap_or("?")));
    // The payload of a panic may itself panic when it is dropped.
    std::mem::forget(panic);
}

/// Writes a warning into the server's log.
pub fn log(message: &str) {
    let message = CString::new(message.replace('\0', "\\0")).unwrap_or_default();
    // The message is an argument, never the format: it may contain bytes from a client.
    api!(RedisModule_Log(
        null_mut::<raw::RedisModuleCtx>(),
        c"warning".as_ptr(),
        c"%s".as_ptr(),
        message.as_ptr(),
    ));
}

/// Panics on purpose, to test the guards.
#[cfg(feature = "faults")]
pub mod fault {
    use std::sync::Mutex;

    static ARMED: Mutex<Option<String>> = Mutex::new(None);

    /// Makes the next run of the callback named `what` panic.
    pub fn arm(what: String) {
        *ARMED.lock().expect("no panic happens while it is locked") = Some(what);
    }

    pub(super) fn strike(what: &str) {
        let struck = ARMED
            .lock()
            .expect("no panic happens while it is locked")
            .take_if(|armed| armed == what);
        if struck.is_some() {
            panic!("on purpose, with %s%n in it");
        }
    }
}

//! A section of INFO, as the module reads it.

use std::ffi::{CStr, CString};

use redis_module::raw;

/// A section of INFO, as it was when it was read.
pub struct Section {
    ctx: *mut raw::RedisModuleCtx,
    data: *mut raw::RedisModuleServerInfoData,
}

impl Section {
    pub fn of(ctx: *mut raw::RedisModuleCtx, name: &CStr) -> Section {
        let data = api!(RedisModule_GetServerInfo(ctx, name.as_ptr()));
        Section { ctx, data }
    }

    /// The value of a field, if the section has the field.
    pub fn field(&self, name: &str) -> Option<String> {
        let name = CString::new(name).ok()?;
        let text = api!(RedisModule_ServerInfoGetFieldC(self.data, name.as_ptr()));
        // SAFETY: the server returns a C string, which lives as long as the section.
        let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })?;
        Some(text.to_string_lossy().into_owned())
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        api!(RedisModule_FreeServerInfo(self.ctx, self.data));
    }
}

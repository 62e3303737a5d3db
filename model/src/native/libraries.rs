//! Libraries that are loaded while the program runs, for the life of the process.

use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// Loads a library whose symbols and registrations all others see; it is never unloaded.
///
/// # Errors
///
/// The loader's own words: which library or symbol is missing.
pub(crate) fn load_globally(path: &Path) -> Result<(), String> {
    // SAFETY: runs the library's initialisers. libtorch's own register its operators and may be run
    // at any time before those operators are asked for; the caller names no other library.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
    // The error itself only says which call failed; its source has the loader's words.
    let library = library.map_err(|error| match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    })?;
    std::mem::forget(library);
    Ok(())
}

/// Where a library that is loaded already was loaded from.
pub(crate) fn loaded_path(file_name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths = maps.lines().filter_map(|line| line.split_once('/')).map(|(_, path)| path);
    let path = paths.map(|path| PathBuf::from(format!("/{path}")));
    path.into_iter().find(|path| path.file_name().is_some_and(|name| name == file_name))
}

/// The name of a CUDA device as its driver gives it.
pub(crate) fn cuda_device_name(index: usize) -> Option<String> {
    type Init = unsafe extern "C" fn(u32) -> c_int;
    type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;

    let mut name: [c_char; 256] = [0; 256];
    // SAFETY: the three functions have had these signatures since CUDA 2; each is called with
    // places of the right size, and only if the one before succeeded.
    unsafe {
        let driver = Library::open(Some("libcuda.so.1"), RTLD_NOW).ok()?;
        let init = driver.get::<Init>(b"cuInit\0").ok()?;
        let get = driver.get::<Get>(b"cuDeviceGet\0").ok()?;
        let name_of = driver.get::<Name>(b"cuDeviceGetName\0").ok()?;
        let mut device = 0;
        let is_found = init(0) == 0
            && get(&raw mut device, c_int::try_from(index).ok()?) == 0
            && name_of(name.as_mut_ptr(), 255, device) == 0;
        std::mem::forget(driver);
        is_found.then(|| CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtorch_is_found_where_it_was_loaded_from() {
        let _tensor = tch::Tensor::from_slice(&[1.0_f32]);
        let path = loaded_path("libtorch_cpu.so").unwrap();
        assert!(path.is_absolute() && path.exists(), "{}", path.display());
        assert_eq!(loaded_path("libnothing.so"), None);
    }

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let said = load_globally(Path::new("/nowhere/libtorch_cuda.so")).unwrap_err();
        assert!(said.contains("/nowhere/libtorch_cuda.so"), "{said}");
    }
}

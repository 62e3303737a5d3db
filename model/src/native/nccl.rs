//! The few functions of NCCL that a gang needs, by their C names, from a library that is found while the program
//! runs. Signatures have not changed since NCCL 2.14.

use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tch::{Kind, Tensor};

use super::torch::Stream;

/// Bytes of what rank 0 draws and all ranks of a communicator must know.
pub(crate) const ID_BYTES: usize = 128;
const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;
const SUM: c_int = 0;
const FLOAT32: c_int = 7;

#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([c_char; ID_BYTES]);

/// `ncclConfig_t` as of 2.14: NCCL takes what its size says, and defaults for the rest.
#[repr(C)]
struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
}

type Comm = *mut c_void;

/// The library.
pub(crate) struct Nccl {
    get_version: unsafe extern "C" fn(*mut c_int) -> c_int,
    get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    init: unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int, *mut Config) -> c_int,
    async_error: unsafe extern "C" fn(Comm, *mut c_int) -> c_int,
    abort: unsafe extern "C" fn(Comm) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    last_error: unsafe extern "C" fn(Comm) -> *const c_char,
    all_reduce: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        Comm,
        *mut c_void,
    ) -> c_int,
    all_gather:
        unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, Comm, *mut c_void) -> c_int,
}

/// Whether what was begun is through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    UnderWay,
}

impl Nccl {
    /// Loads the library, for the life of the process.
    ///
    /// # Errors
    ///
    /// The loader's own words.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let words = |error: libloading::Error| match error.source() {
            Some(source) => source.to_string(),
            None => error.to_string(),
        };
        // SAFETY: NCCL's initialisers only read the environment; its functions have had these signatures
        // since 2.14, and the library is never unloaded.
        unsafe {
            let library = Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL).map_err(words)?;
            let found = Self {
                get_version: *library.get(b"ncclGetVersion\0").map_err(words)?,
                get_unique_id: *library.get(b"ncclGetUniqueId\0").map_err(words)?,
                init: *library.get(b"ncclCommInitRankConfig\0").map_err(words)?,
                async_error: *library.get(b"ncclCommGetAsyncError\0").map_err(words)?,
                abort: *library.get(b"ncclCommAbort\0").map_err(words)?,
                error_string: *library.get(b"ncclGetErrorString\0").map_err(words)?,
                last_error: *library.get(b"ncclGetLastError\0").map_err(words)?,
                all_reduce: *library.get(b"ncclAllReduce\0").map_err(words)?,
                all_gather: *library.get(b"ncclAllGather\0").map_err(words)?,
            };
            std::mem::forget(library);
            Ok(found)
        }
    }

    /// As one number: 22809 is 2.28.9.
    pub(crate) fn version(&self) -> Result<c_int, String> {
        let mut version = 0;
        // SAFETY: a place for one number.
        self.check(unsafe { (self.get_version)(&raw mut version) }, std::ptr::null_mut())?;
        Ok(version)
    }

    /// Draws what the ranks of a new communicator must know.
    pub(crate) fn draw_id(&self) -> Result<[u8; ID_BYTES], String> {
        let mut id = UniqueId([0; ID_BYTES]);
        // SAFETY: a place for one structure.
        self.check(unsafe { (self.get_unique_id)(&raw mut id) }, std::ptr::null_mut())?;
        Ok(id.0.map(|byte| byte.to_ne_bytes()[0]))
    }

    /// Begins to join a communicator on the calling thread's current device; [`Self::progress`] tells when it is
    /// there.
    pub(crate) fn begin_join(
        &self,
        id: &[u8; ID_BYTES],
        rank: usize,
        ranks: usize,
    ) -> Result<Communicator, String> {
        let id = UniqueId(id.map(|byte| c_char::from_ne_bytes([byte])));
        let size = size_of::<Config>();
        let mut config = Config { size, magic: 0xcafe_beef, version: 21_400, blocking: 0 };
        let [rank, ranks] = [rank, ranks].map(|it| c_int::try_from(it).unwrap_or(c_int::MAX));
        let mut comm = std::ptr::null_mut();
        // SAFETY: a place for one pointer, and a whole configuration of the size it says.
        let said = unsafe { (self.init)(&raw mut comm, ranks, id, rank, &raw mut config) };
        self.check(said, comm)?;
        Ok(Communicator(comm))
    }

    /// How far what was begun last has come; an error of any kind, also of what runs on the device.
    pub(crate) fn progress(&self, comm: &Communicator) -> Result<Progress, String> {
        let mut state = SUCCESS;
        // SAFETY: the communicator was made by `begin_join` and is not aborted: that takes it.
        let said = unsafe { (self.async_error)(comm.0, &raw mut state) };
        self.check(said, comm.0)?;
        self.check(state, comm.0)
    }

    /// Queues the sum of a tensor over all ranks, in place.
    pub(crate) fn begin_sum(
        &self,
        comm: &Communicator,
        tensor: &Tensor,
        stream: &Stream,
    ) -> Result<Progress, String> {
        let data = floats(tensor)?;
        // SAFETY: the tensor is contiguous f32 on the device, of as many elements as are named, and the caller
        // keeps it until the stream has come to the end of this.
        let said = unsafe {
            let (count, stream) = (tensor.numel(), stream.handle());
            (self.all_reduce)(data, data, count, FLOAT32, SUM, comm.0, stream)
        };
        self.check(said, comm.0)
    }

    /// Queues the gathering of every rank's `own` into `all`, by rank.
    pub(crate) fn begin_gather(
        &self,
        comm: &Communicator,
        own: &Tensor,
        all: &Tensor,
        stream: &Stream,
    ) -> Result<Progress, String> {
        let (from, to) = (floats(own)?, floats(all)?);
        // SAFETY: as in `begin_sum`; the caller made `all` as large as the ranks' own together.
        let said =
            unsafe { (self.all_gather)(from, to, own.numel(), FLOAT32, comm.0, stream.handle()) };
        self.check(said, comm.0)
    }

    /// Ends a communicator at once, whatever is under way. May take for ever if a device hangs.
    pub(crate) fn abort(&self, comm: Communicator) {
        // SAFETY: it is taken, so nothing uses it afterwards.
        unsafe { (self.abort)(comm.0) };
    }

    fn check(&self, said: c_int, comm: Comm) -> Result<Progress, String> {
        match said {
            SUCCESS => Ok(Progress::Done),
            IN_PROGRESS => Ok(Progress::UnderWay),
            code => {
                // SAFETY: both return texts that live as long as the library, or null.
                let texts = unsafe { [(self.error_string)(code), (self.last_error)(comm)] };
                let texts = texts.into_iter().filter(|text| !text.is_null());
                // SAFETY: not null, and ended as C texts are.
                let texts = texts.map(|text| unsafe { CStr::from_ptr(text) }.to_string_lossy());
                let texts: Vec<_> = texts.filter(|text| !text.is_empty()).collect();
                Err(texts.join(": "))
            }
        }
    }
}

/// One rank's end of a communicator.
pub(crate) struct Communicator(Comm);

// SAFETY: NCCL lets any thread use a communicator, one at a time; ours is owned by one.
unsafe impl Send for Communicator {}

fn floats(tensor: &Tensor) -> Result<*mut c_void, String> {
    if tensor.kind() == Kind::Float && tensor.is_contiguous() && tensor.device().is_cuda() {
        Ok(tensor.data_ptr())
    } else {
        Err("only whole f32 tensors on a GPU are exchanged".to_owned())
    }
}

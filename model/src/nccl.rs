//! Exchanges among GPUs by NCCL, whose library is found beside libtorch while the program runs.
//!
//! A gang has met over TCP before, by which its ranks proved who they are and tell each other what a
//! communicator needs. Here only tensors travel that lie on a GPU.
//!
//! A peer's death may raise nothing in NCCL (over NVLink or shared memory it waits for ever), so nobody waits
//! inside it: communicators do not block, each exchange is waited for by looking, and while it looks a rank
//! also asks whether it is to give up. An abort that does not return within two seconds ends the process. A
//! communicator whose gang ended well is left to the process's end, which is near.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use crate::collective::CollectiveError;
use crate::native::{self, Communicator, Event, ID_BYTES, NativeError, Progress, Stream};

/// Names the file of NCCL, where it does not lie beside libtorch.
pub const LIBRARY_VARIABLE: &str = "CLADE_NCCL";
const LIBRARY: &str = "libnccl.so.2";
/// Non-blocking communicators, and errors with their cause.
const OLDEST: i32 = 21_800;
/// An abort that takes longer hangs with the device.
const ABORT_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at an exchange: much less than one takes.
const LOOK: Duration = Duration::from_micros(20);
/// After this long, looks are rarer.
const SOON: Duration = Duration::from_millis(2);

/// Why there is no NCCL here.
#[derive(Debug, thiserror::Error)]
pub enum NcclError {
    #[error(
        "no {LIBRARY} in {}: a torch with CUDA from pip brings it; else name the file in {LIBRARY_VARIABLE}",
        looked.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NotFound { looked: Vec<PathBuf> },
    #[error("cannot load {}: {why}", path.display())]
    Unloadable { path: PathBuf, why: String },
    #[error("{} is NCCL {}, and at least {} is needed", path.display(), version(*found), version(OLDEST))]
    TooOld { path: PathBuf, found: i32 },
    #[error("NCCL: {0}")]
    Failed(String),
    #[error("NCCL: the ranks did not come together within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

/// Whether this process has NCCL: libtorch may have brought it, or a gang.
pub fn is_loaded() -> bool {
    native::loaded_path(LIBRARY).is_some()
}

/// `2.28.9` from 22809.
fn version(number: i32) -> String {
    format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
}

/// NCCL's library.
pub struct Library {
    nccl: native::Nccl,
    pub path: PathBuf,
    version: i32,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NCCL {} of {}", self.version(), self.path.display())
    }
}

impl Library {
    /// Finds and loads NCCL: where the environment names it, as libtorch has loaded it, or in the folders
    /// beside libtorch, as pip lays them out.
    pub fn find() -> Result<Self, NcclError> {
        if let Some(path) = std::env::var_os(LIBRARY_VARIABLE) {
            return Self::load(Path::new(&path));
        }
        if let Some(path) = native::loaded_path(LIBRARY) {
            return Self::load(&path);
        }
        let torch = native::loaded_path("libtorch_cpu.so");
        let torch = torch.as_deref().and_then(Path::parent).unwrap_or(Path::new("/"));
        let looked = vec![torch.to_owned(), torch.join("../../nvidia/nccl/lib")];
        let found = looked.iter().map(|folder| folder.join(LIBRARY)).find(|path| path.exists());
        Self::load(&found.ok_or(NcclError::NotFound { looked })?)
    }

    /// Loads NCCL from a file.
    pub fn load(path: &Path) -> Result<Self, NcclError> {
        let path = path.to_owned();
        let nccl = native::Nccl::load(&path)
            .map_err(|why| NcclError::Unloadable { path: path.clone(), why })?;
        let version = nccl.version().map_err(NcclError::Failed)?;
        if version < OLDEST {
            return Err(NcclError::TooOld { path, found: version });
        }
        Ok(Self { nccl, path, version })
    }

    pub fn version(&self) -> String {
        version(self.version)
    }

    /// Draws what all ranks of one communicator must know; rank 0 does.
    pub fn draw_id(&self) -> Result<Id, NcclError> {
        Ok(Id(self.nccl.draw_id().map_err(NcclError::Failed)?))
    }
}

/// What all ranks of one communicator must know. Whoever knows it may join: it travels among ranks that have
/// proved themselves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Id([u8; ID_BYTES]);

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Id(…)")
    }
}

impl Id {
    /// As numbers that a collective carries.
    pub fn to_values(self) -> Vec<f32> {
        self.0.iter().map(|byte| f32::from(*byte)).collect()
    }

    /// The way back; nothing else than what [`Self::to_values`] gave.
    pub fn from_values(values: &[f32]) -> Option<Self> {
        let bytes: Option<Vec<u8>> = values
            .iter()
            .map(|value| {
                let is_byte = (0.0..=255.0).contains(value) && value.fract() == 0.0;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a byte"
                )]
                is_byte.then_some(*value as u8)
            })
            .collect();
        bytes?.try_into().ok().map(Self)
    }

    /// For [`Self::from_values`] on the ranks that are told.
    pub fn blank_values() -> Vec<f32> {
        vec![0.0; ID_BYTES]
    }
}

/// One GPU's place in a gang of them.
pub struct Gpus {
    library: Library,
    /// None once aborted.
    comm: Option<Communicator>,
    stream: Stream,
    index: usize,
    ranks: usize,
    waited: Duration,
    /// Passed when this rank has computed all that is being exchanged.
    computed: Option<Event>,
}

impl fmt::Debug for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{} of {} by {:?}", self.index, self.ranks, self.library)
    }
}

/// Whether a rank is to give up waiting, and why: asked while it looks at an exchange.
pub type GiveUp<'a> = &'a dyn Fn() -> Option<CollectiveError>;

impl Gpus {
    /// Joins the other ranks; all must call it with the same `id`.
    pub fn join(
        library: Library,
        id: &Id,
        (rank, ranks): (usize, usize),
        device: Device,
        patience: Duration,
        give_up: GiveUp<'_>,
    ) -> Result<Self, NcclError> {
        let Device::Cuda(index) = device else {
            return Err(NcclError::Failed(format!("{device:?} is no GPU")));
        };
        let failed = |error: NativeError| NcclError::Failed(error.to_string());
        let stream = Stream::new(index).map_err(failed)?;
        let joined = library.nccl.begin_join(&id.0, rank, ranks);
        let comm = Some(joined.map_err(NcclError::Failed)?);
        let mut gpus =
            Self { library, comm, stream, index, ranks, waited: Duration::ZERO, computed: None };
        let begun = Instant::now();
        loop {
            match gpus.progress() {
                Ok(Progress::Done) => return Ok(gpus),
                Ok(Progress::UnderWay) => (),
                Err(why) => {
                    gpus.abort();
                    return Err(give_up().map_or(NcclError::Failed(why), NcclError::from));
                }
            }
            let given_up = give_up().map(NcclError::from);
            let given_up = given_up
                .or_else(|| (begun.elapsed() > patience).then_some(NcclError::Timeout(patience)));
            if let Some(why) = given_up {
                gpus.abort();
                return Err(why);
            }
            std::thread::park_timeout(SOON);
        }
    }

    /// Begins to replace an f32 tensor on this rank's GPU by the sum over all ranks, once what is queued to
    /// compute it has run; [`Self::end`] waits for it.
    ///
    /// # Errors
    ///
    /// After any error the gang is over, and the communicator aborted.
    pub fn begin_sum(
        &mut self,
        tensor: &Tensor,
        give_up: GiveUp<'_>,
    ) -> Result<(), CollectiveError> {
        let begun = self
            .begin(give_up, |gpus, comm| gpus.library.nccl.begin_sum(comm, tensor, &gpus.stream));
        self.or_abort(begun)
    }

    /// Waits for all that was begun.
    ///
    /// # Errors
    ///
    /// As [`Self::begin_sum`].
    pub fn end(&mut self, give_up: GiveUp<'_>) -> Result<(), CollectiveError> {
        let ended = self.finish(give_up);
        let waited = self.or_abort(ended)?;
        self.waited += waited;
        Ok(())
    }

    /// Every rank's `own`, by rank, which are of the same shape.
    ///
    /// # Shapes
    ///
    /// - `own`: `[values]` f32
    /// - returns `[ranks, values]` f32
    pub fn gather(&mut self, own: &Tensor, give_up: GiveUp<'_>) -> Result<Tensor, CollectiveError> {
        let shape = [i64::try_from(self.ranks).expect("few ranks"), own.size()[0]];
        let all = Tensor::empty(shape, (Kind::Float, own.device()));
        let begun = self.begin(give_up, |gpus, comm| {
            gpus.library.nccl.begin_gather(comm, own, &all, &gpus.stream)
        });
        self.or_abort(begun)?;
        self.end(give_up)?;
        Ok(all)
    }

    fn progress(&self) -> Result<Progress, String> {
        let comm = self.comm.as_ref().ok_or_else(|| "it was aborted".to_owned())?;
        self.library.nccl.progress(comm)
    }

    fn or_abort<R>(&mut self, result: Result<R, CollectiveError>) -> Result<R, CollectiveError> {
        if result.is_err() {
            self.abort();
        }
        result
    }

    /// How long this rank has waited for the others since it was last asked.
    pub const fn take_waited(&mut self) -> Duration {
        std::mem::replace(&mut self.waited, Duration::ZERO)
    }

    /// Queues an exchange behind what tensors are queued to be computed.
    fn begin(
        &mut self,
        give_up: GiveUp<'_>,
        begin: impl FnOnce(&Self, &Communicator) -> Result<Progress, String>,
    ) -> Result<(), CollectiveError> {
        let lost = |why: String| give_up().unwrap_or(CollectiveError::Device { why });
        let comm = self.comm.as_ref().ok_or(CollectiveError::Aborted)?;
        let computed = self.stream.follow_tensors();
        let computed = computed.map_err(|error| lost(error.to_string()))?;
        begin(self, comm).map_err(lost)?;
        let begun = Instant::now();
        // It may not even be queued yet, and nothing else may be begun before it is.
        while self.progress().map_err(lost)? == Progress::UnderWay {
            look_again(begun, give_up)?;
        }
        self.computed = Some(computed);
        Ok(())
    }

    /// Waits for all that is queued; returns for how long this rank could do nothing but wait for the others.
    fn finish(&mut self, give_up: GiveUp<'_>) -> Result<Duration, CollectiveError> {
        // What a peer's end looks like from here is an error of the network, if anything.
        let lost = |why: String| give_up().unwrap_or(CollectiveError::Device { why });
        let torch = |error: NativeError| lost(error.to_string());
        let Some(computed) = self.computed.take() else { return Ok(Duration::ZERO) };
        let end = self.stream.lead_tensors().map_err(torch)?;
        let begun = Instant::now();
        let mut idle: Option<Instant> = None;
        while !end.is_passed().map_err(torch)? {
            self.progress().map_err(lost)?;
            if idle.is_none() && computed.is_passed().map_err(torch)? {
                idle = Some(Instant::now());
            }
            look_again(begun, give_up)?;
        }
        Ok(idle.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    /// Ends the communicator; the process, too, if that hangs with the device.
    fn abort(&mut self) {
        let Some(comm) = self.comm.take() else { return };
        let (done, is_done) = channel::<()>();
        std::thread::spawn(move || {
            if is_done.recv_timeout(ABORT_PATIENCE).is_err() {
                eprintln!("NCCL's abort did not return within {ABORT_PATIENCE:?}: this rank ends");
                native::exit_now();
            }
        });
        self.library.nccl.abort(comm);
        // The watchdog listens until it is told, or has ended the process.
        let _: Result<(), _> = done.send(());
    }
}

fn look_again(begun: Instant, give_up: GiveUp<'_>) -> Result<(), CollectiveError> {
    if begun.elapsed() < SOON {
        std::thread::park_timeout(LOOK);
        return Ok(());
    }
    std::thread::park_timeout(SOON);
    give_up().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_nccl_says_where_it_was_looked_for() {
        if std::env::var_os(LIBRARY_VARIABLE).is_some() {
            return;
        }
        match Library::find() {
            // A torch with CUDA is here.
            Ok(found) => assert!(found.version() >= version(OLDEST)),
            Err(error) => {
                let told = error.to_string();
                assert!(
                    told.contains("nvidia/nccl/lib") && told.contains(LIBRARY_VARIABLE),
                    "{told}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_nccl_is_refused_by_name() {
        let told = Library::load(Path::new("/nowhere/libnccl.so.2")).unwrap_err().to_string();
        assert!(told.starts_with("cannot load /nowhere/libnccl.so.2: "), "{told}");
        // A library of another kind.
        let torch = native::loaded_path("libtorch_cpu.so");
        let _tensor = Tensor::from_slice(&[1.0_f32]);
        let torch = torch.or_else(|| native::loaded_path("libtorch_cpu.so")).unwrap();
        let told = Library::load(&torch).unwrap_err().to_string();
        assert!(told.contains("ncclGetVersion"), "{told}");
    }

    #[test]
    fn where_there_is_nccl_it_is_loaded_and_draws_ids_without_any_gpu() {
        let Some(path) = std::env::var_os(LIBRARY_VARIABLE) else { return };
        let library = Library::load(Path::new(&path)).unwrap();
        assert!(library.version >= OLDEST, "{library:?}");
        let ids = [(); 2].map(|()| library.draw_id().unwrap());
        assert!(ids[0] != ids[1]);
        let never = || None;
        let patience = Duration::from_secs(1);
        let joined = Gpus::join(library, &ids[0], (0, 2), Device::Cpu, patience, &never);
        assert!(joined.unwrap_err().to_string().contains("is no GPU"));
    }

    #[test]
    fn an_id_travels_as_numbers_and_comes_back() {
        let id = Id(std::array::from_fn(|at| u8::try_from(at * 2 % 256).unwrap()));
        assert_eq!(Id::from_values(&id.to_values()), Some(id));
        for wrong in [-1.0, 256.0, 0.5, f32::NAN] {
            let mut values = id.to_values();
            values[7] = wrong;
            assert_eq!(Id::from_values(&values), None);
        }
        assert_eq!(Id::from_values(&[1.0]), None);
        assert_eq!(Id::blank_values().len(), id.to_values().len());
    }

    #[test]
    fn versions_are_told_as_their_makers_write_them() {
        assert_eq!([22_809, 21_800, 23_002].map(version), ["2.28.9", "2.18.0", "2.30.2"]);
    }
}

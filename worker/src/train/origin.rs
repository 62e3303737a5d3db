//! Where a model goes on from, proved before a step is made.
//!
//! Its own newest sound checkpoint, else the seed model's last one, else (the seed model only)
//! weights drawn from the run's seed. A model that has committed checkpoints never starts over:
//! if none of them is sound, it fails and says so. Rank 0 chooses, the others take the same.

use std::path::Path;

use clade_core::ids::{CheckpointRef, ModelId};
use clade_core::job::Failure;
use clade_model::clip::ClipModel;
use clade_model::train::Trainer;
use clade_store::{CheckpointManifest, StoreError, checkpoint};

use super::course::Course;
use super::gang::Gang;
use super::how::How;
use super::keeper::{MODEL_FILE, OPTIMIZER_FILE};
use crate::context::{Context, Ending};

/// Said instead of a choice when there is nothing to choose.
const NONE_IS_SOUND: u16 = u16::MAX;

pub(super) struct Origin {
    pub(super) trainer: Trainer,
    /// Pairs of this model's own stream consumed so far.
    pub(super) cursor: u64,
    pub(super) parent: Option<CheckpointRef>,
}

/// Why a checkpoint cannot be gone on from.
#[derive(Debug, thiserror::Error)]
enum Unsound {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Content(String),
}

/// What went wrong on this machine's disk is not the checkpoint's fault.
impl From<std::io::Error> for Unsound {
    fn from(error: std::io::Error) -> Self {
        let key = "this machine's cache".to_owned();
        Self::Store(StoreError::Io { key, source: Box::new(error) })
    }
}

impl Unsound {
    /// Whether an older checkpoint may serve instead.
    const fn is_bad_artefact(&self) -> bool {
        match self {
            Self::Store(error) => error.is_bad_artefact(),
            Self::Content(_) => true,
        }
    }
}

impl Origin {
    pub(super) fn find(
        context: &Context,
        course: &Course,
        gang: &mut Gang,
    ) -> Result<Self, Ending> {
        let own: Vec<&CheckpointRef> =
            context.job.resume.iter().chain(&context.job.fallbacks).collect();
        if !own.is_empty() {
            return Self::choose(context, course, gang, &own);
        }
        match course.model {
            ModelId::Seed => {
                tracing::info!(seed = context.spec.spec.seed, "starting the seed model");
                let seed = context.spec.spec.seed;
                let model = ClipModel::new_at(&course.config, seed, course.placement);
                let trainer = Trainer::from_model(model, course.hyper);
                Ok(Self { trainer, cursor: 0, parent: None })
            }
            ModelId::Dense | ModelId::Expert(_) => {
                let seed = context.job.models.get(&ModelId::Seed).ok_or_else(|| {
                    let message = format!(
                        "{} starts from the seed model, but its job file names no `seed` in `models`",
                        course.model
                    );
                    Failure::Config { message }
                })?;
                Self::choose(context, course, gang, &[seed])
            }
        }
    }

    /// Takes the first sound one of `candidates`; the whole gang takes the same.
    fn choose(
        context: &Context,
        course: &Course,
        gang: &mut Gang,
        candidates: &[&CheckpointRef],
    ) -> Result<Self, Ending> {
        let mut chosen = None;
        let mut faults = Vec::new();
        if context.job.rank == 0 {
            for (index, at) in (0..NONE_IS_SOUND).zip(candidates) {
                match Self::take(context, course, at) {
                    Ok(origin) => {
                        chosen = Some((index, origin));
                        break;
                    }
                    Err(fault) if fault.is_bad_artefact() => {
                        tracing::warn!(%at, %fault, "a checkpoint is unsound: trying an older one");
                        faults.push(format!("{at}: {fault}"));
                    }
                    Err(fault) => {
                        faults.push(format!("{at}: {fault}"));
                        break;
                    }
                }
            }
        }
        let own = chosen.as_ref().map_or(NONE_IS_SOUND, |(index, _)| *index);
        let told = gang.told(own).map_err(|error| gang.broken(context, &error))?;
        if let Some((_, origin)) = chosen {
            return Ok(origin);
        }
        if context.job.rank > 0
            && let Some(at) = candidates.get(usize::from(told))
        {
            return Self::take(context, course, at)
                .map_err(|fault| Failure::Storage { message: format!("{at}: {fault}") }.into());
        }
        let faults = if faults.is_empty() { "see rank 0".to_owned() } else { faults.join("; ") };
        let message = format!(
            "none of {}'s checkpoints can be gone on from, and it does not start over: {faults}",
            course.model
        );
        Err(Failure::Storage { message }.into())
    }

    fn take(context: &Context, course: &Course, at: &CheckpointRef) -> Result<Self, Unsound> {
        let folder = context.scratch.join("origin");
        let taken = Self::take_into(context, course, at, &folder);
        // The next candidate, and the steps, need the room.
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::debug!(%error, "no folder of the origin to remove");
        }
        let (trainer, manifest) = taken?;
        let before = manifest.how.clone().and_then(|how| serde_json::from_value::<How>(how).ok());
        let differences = before.map(|before| How::here(course).differences(&before));
        if let Some(differences) =
            differences.filter(|all| at.model == course.model && !all.is_empty())
        {
            tracing::info!(
                ?differences,
                "steps agree with those before to rounding, not bit for bit"
            );
        }
        let cursor = stream_position(course, context.spec.spec.seed, at, &manifest)?;
        tracing::info!(%at, cursor, "going on from a checkpoint");
        Ok(Self { trainer, cursor, parent: Some(at.clone()) })
    }

    fn take_into(
        context: &Context,
        course: &Course,
        at: &CheckpointRef,
        folder: &Path,
    ) -> Result<(Trainer, CheckpointManifest), Unsound> {
        std::fs::create_dir_all(folder)
            .map_err(|error| StoreError::from_io(folder.display().to_string(), error))?;
        let manifest = fetch(context, at, folder)?;
        let [model, optimizer] = [MODEL_FILE, OPTIMIZER_FILE].map(|name| folder.join(name));
        let trainer = load(course, &model, &optimizer)?;
        if trainer.steps_done() == manifest.step.0 {
            Ok((trainer, manifest))
        } else {
            Err(Unsound::Content(format!(
                "its optimizer is at step {}, its manifest at {}",
                trainer.steps_done(),
                manifest.step
            )))
        }
    }
}

/// Brings a checkpoint's files into `folder`, and proves them. From a bucket they come once to a machine:
/// its ranks, also those of other models that start from the same seed, share what is in its cache.
fn fetch(
    context: &Context,
    at: &CheckpointRef,
    folder: &Path,
) -> Result<CheckpointManifest, Unsound> {
    let (store, run) = (&context.store, &context.job.run);
    // Nobody else reads what a rank alone goes on from.
    let is_shared = at.model == ModelId::Seed && context.job.work.model() != Some(ModelId::Seed)
        || context.job.ranks > 1;
    let cache = context.cache.as_ref().filter(|_| is_shared && store.local_path("").is_none());
    let Some(cache) = cache else {
        return Ok(context.block_on(checkpoint::fetch(store, run, at, folder))?);
    };
    let manifest = context.block_on(checkpoint::read(store, run, at))?;
    for part in &manifest.parts {
        let (key, into) = (checkpoint::part(run, at, part)?, folder.join(&part.name));
        let download = |path: &Path| context.block_on(store.download(&key, path, &part.sha256));
        if !cache.holds(part.bytes) {
            download(&into)?;
            continue;
        }
        let mut is_fresh = false;
        let bring = |path: &Path| {
            is_fresh = true;
            Ok::<_, Unsound>(download(path)?)
        };
        cache.link(&part.sha256, part.bytes, &into, bring)?;
        // What lies here from earlier may have gone bad since.
        if !is_fresh && !checkpoint::is_sound(&into, part)? {
            tracing::warn!(key, "the cached copy is damaged: reading it from the store");
            cache.discard(&part.sha256);
            std::fs::remove_file(&into)?;
            download(&into)?;
        }
    }
    Ok(manifest)
}

fn load(course: &Course, model: &Path, optimizer: &Path) -> Result<Trainer, Unsound> {
    Trainer::load(&course.config, course.hyper, model, optimizer, course.placement)
        .map_err(|error| Unsound::Content(error.to_string()))
}

/// Where in its own stream the model stands at a checkpoint.
fn stream_position(
    course: &Course,
    seed: u64,
    at: &CheckpointRef,
    manifest: &CheckpointManifest,
) -> Result<u64, Unsound> {
    let step = manifest.step.0;
    let wrong = |what: String| Err(Unsound::Content(what));
    if manifest.seed != seed {
        return wrong(format!("it belongs to a run with seed {}, not {seed}", manifest.seed));
    }
    if at.model != course.model {
        // The seed model's last: this model's own stream begins here.
        if step != course.from {
            return wrong(format!(
                "it is at step {step}, but {} starts at {}",
                course.model, course.from
            ));
        }
        return Ok(0);
    }
    if manifest.data != course.data_digest {
        return wrong(format!("it was trained on other data ({})", manifest.data));
    }
    // Refused batches are consumed too, so the cursor may be ahead of the steps.
    let batch = u64::from(course.global_batch);
    if manifest.cursor < course.cursor_at(step) || !manifest.cursor.is_multiple_of(batch) {
        return wrong(format!("its cursor {} does not belong to step {step}", manifest.cursor));
    }
    Ok(manifest.cursor)
}

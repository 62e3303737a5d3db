//! Which models saw a pair, how often, and up to which checkpoint: computed from manifests alone.
//!
//! The order of data is a pure function of what a model's data manifest says, and a checkpoint's
//! manifest says how far into it the model was, so nobody has to have kept a record. Nothing is trained,
//! asked of a coordinator, or written.

use std::collections::BTreeMap;

use clade_core::ids::{CheckpointRef, Digest, ModelId, RunName, Step};
use clade_core::order::{self, Order, PairAt, Sources};
use clade_core::spec::RunSpec;
use clade_store::checkpoint::{self, History};
use clade_store::{DataManifest, DataShard, Store, StoreError, keys};
use serde::Serialize;

use crate::cause::{Place, Unusable};
use crate::index::{Foreign, Index};
use crate::table::TableError;

/// Why it cannot be told who saw a pair.
#[derive(Debug, thiserror::Error)]
pub enum ProvenanceError {
    #[error("the store holds no run `{run}`: `{key}` is missing")]
    NoRun { run: RunName, key: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Table(#[from] TableError),
}

/// What is known of a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhoSaw {
    pub key: String,
    /// Where the pair lies in the input; none if the catalogue does not have it.
    pub found: Option<Found>,
    /// Why the pair was not used, if the run listed it as unusable: cause and place.
    pub unusable: Vec<(String, Place)>,
    /// Models in the order of the run, those without a checkpoint too.
    pub models: Vec<ModelSaw>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    pub tar: String,
    /// Bytes from the start of the tar to the picture.
    pub offset: u64,
    pub captions: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelSaw {
    pub model: ModelId,
    /// What the pair is to the model; none if it is not among its data.
    pub role: Option<Role>,
    /// Checkpoints in the store of the model's own history, oldest first.
    pub checkpoints: Vec<CheckpointSaw>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// One of its own.
    Own,
    /// Drawn from the pool in one of several passes.
    Foreign { pass: u32 },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointSaw {
    pub checkpoint: CheckpointRef,
    /// Times the pair was drawn up to it, in the model's own stream.
    pub times: u64,
    /// Steps of the model's own stream, from 1, whose batches had it first and last.
    pub first_step: Option<u64>,
    pub last_step: Option<u64>,
    /// Times the seed's checkpoint that it began from had seen the pair.
    pub through_seed: u64,
}

/// Tells who saw the pair `key` of a run.
pub async fn who_saw(store: &Store, run: &RunName, key: &str) -> Result<WhoSaw, ProvenanceError> {
    let spec_key = keys::spec(run);
    let spec = match store.get_manifest::<RunSpec>(&spec_key).await {
        Ok((spec, _)) => spec,
        Err(StoreError::NotFound { key }) => {
            return Err(ProvenanceError::NoRun { run: run.clone(), key });
        }
        Err(error) => return Err(error.into()),
    };
    let mut streams = Streams { store, run, spec: &spec, key, found: None, known: BTreeMap::new() };
    let mut models = Vec::new();
    for model in spec.models() {
        models.push(streams.model(model).await?);
    }
    let found = streams.found;
    let unusable = if found.is_none() { unusable(store, run, key).await? } else { Vec::new() };
    Ok(WhoSaw { key: key.to_owned(), found, unusable, models })
}

/// What the catalogue said of a key it did not take.
async fn unusable(
    store: &Store,
    run: &RunName,
    key: &str,
) -> Result<Vec<(String, Place)>, ProvenanceError> {
    let list: Unusable = match store.get_manifest(&keys::unusable(run)).await {
        Ok((list, _)) => list,
        Err(StoreError::NotFound { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let of_key = |place: &&Place| place.key.as_deref() == Some(key);
    let named = list.by_cause().flat_map(|(cause, listed)| {
        listed
            .places
            .iter()
            .filter(of_key)
            .map(move |place| (cause.name().to_owned(), place.clone()))
    });
    Ok(named.collect())
}

/// The streams of a run's models and where the pair is in them.
struct Streams<'a> {
    store: &'a Store,
    run: &'a RunName,
    spec: &'a RunSpec,
    key: &'a str,
    found: Option<Found>,
    /// Where the pair stands, by digest of a model's data: seed and dense share theirs.
    known: BTreeMap<Digest, Option<PairAt>>,
}

impl Streams<'_> {
    async fn model(&mut self, model: ModelId) -> Result<ModelSaw, ProvenanceError> {
        let none = ModelSaw { model, role: None, checkpoints: Vec::new() };
        let key = keys::data_manifest(self.run, model);
        let data = match self.store.get_manifest::<DataManifest>(&key).await {
            Ok((data, _)) => data,
            Err(StoreError::NotFound { .. }) => return Ok(none),
            Err(error) => return Err(error.into()),
        };
        let at = self.find(model, &data).await?;
        let order = self.order(model, &data);
        let history = checkpoint::history(self.store, self.run, model).await?;
        let through_seed = match model {
            ModelId::Seed => 0,
            ModelId::Dense | ModelId::Expert(_) if history.is_empty() => 0,
            ModelId::Dense | ModelId::Expert(_) => self.seen_by_seed().await?,
        };
        let checkpoints =
            history.iter().map(|manifest| self.seen(&order, at, manifest, through_seed)).collect();
        let role = at.map(|at| match at {
            PairAt::Own { .. } => Role::Own,
            PairAt::Foreign { pass, .. } => Role::Foreign { pass },
        });
        Ok(ModelSaw { role, checkpoints, ..none })
    }

    fn order(&self, model: ModelId, data: &DataManifest) -> Order {
        let own = data.shards.iter().map(|shard| shard.pairs).collect();
        let foreign = data.foreign.iter().map(|foreign| foreign.by_pass.clone()).collect();
        Order::new(self.spec.spec.seed, model, &data.content(), Sources { own, foreign })
    }

    fn seen(
        &self,
        order: &Order,
        at: Option<PairAt>,
        history: &History,
        through_seed: u64,
    ) -> CheckpointSaw {
        let positions = at.map_or_else(Vec::new, |at| order.positions_of(at, history.cursor));
        let step = |position: &u64| position / u64::from(self.spec.spec.training.global_batch) + 1;
        CheckpointSaw {
            checkpoint: history.at.clone(),
            times: positions.len() as u64,
            first_step: positions.first().map(step),
            last_step: positions.last().map(step),
            through_seed,
        }
    }

    /// Times that the seed model had drawn the pair when it was done: every other model begins from there.
    async fn seen_by_seed(&mut self) -> Result<u64, ProvenanceError> {
        let key = keys::data_manifest(self.run, ModelId::Seed);
        let (data, _) = self.store.get_manifest::<DataManifest>(&key).await?;
        let Some(at) = self.find(ModelId::Seed, &data).await? else { return Ok(0) };
        let training = &self.spec.spec.training;
        let cursor = order::cursor(Step(training.seed_steps), training.global_batch);
        Ok(self.order(ModelId::Seed, &data).positions_of(at, cursor).len() as u64)
    }

    /// Where the pair stands in a model's data.
    async fn find(
        &mut self,
        model: ModelId,
        data: &DataManifest,
    ) -> Result<Option<PairAt>, ProvenanceError> {
        let content = data.content();
        if let Some(known) = self.known.get(&content) {
            return Ok(*known);
        }
        let mut at = None;
        for (shard, of) in (0..).zip(&data.shards) {
            let index = self.index(of).await?;
            if let Some(row) = (0..index.len()).find(|&row| index.key(row) == self.key) {
                if !of.in_store {
                    let row = index.row(row);
                    let (tar, offset) = (of.tar.clone(), row.offset);
                    self.found = Some(Found { tar, offset, captions: row.captions });
                }
                at = Some(PairAt::Own { shard, index: number(row) });
                break;
            }
        }
        if at.is_none()
            && let ModelId::Expert(expert) = model
        {
            for (shard, of) in (0..).zip(&data.foreign) {
                let index = self.index(&of.shard).await?;
                at = foreign(&index, self.key, expert, shard);
                if at.is_some() {
                    break;
                }
            }
        }
        self.known.insert(content, at);
        Ok(at)
    }

    async fn index(&self, shard: &DataShard) -> Result<Index, ProvenanceError> {
        let DataShard { index: key, index_sha256, .. } = shard;
        Ok(Index::read(key, self.store.get_verified(key, index_sha256).await?)?)
    }
}

/// Where a foreign pair stands, counted as the order of data counts: by pass, without the expert's own.
fn foreign(index: &Index, key: &str, expert: u32, shard: u32) -> Option<PairAt> {
    let row = (0..index.len()).find(|&row| index.key(row) == key)?;
    let Foreign { pass, owner } = index.foreign(row)?;
    if owner == expert {
        return None;
    }
    let before = (0..row).filter(|&row| {
        index.foreign(row).is_some_and(|place| place.pass == pass && place.owner != expert)
    });
    Some(PairAt::Foreign { shard, pass, index: number(before.count()) })
}

fn number(row: usize) -> u32 {
    u32::try_from(row).expect("a shard's pairs are counted in u32")
}

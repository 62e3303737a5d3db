//! Scores every evaluation set with every model and mixture.

use clade_core::job::Failure;
use clade_core::order::deciding_caption;
use clade_model::bert::SentenceEncoder;

use super::by_cluster::{HeldOut, by_cluster};
use super::document::{ClassificationReport, ModelFacts, RetrievalReport};
use super::load::Evaluation;
use super::scores::Features;
use super::setting::{Setting, rows};
use super::tables::{self, ClassWords, Relation, Scored};
use crate::context::{Context, Ending};
use crate::embed_classes::{self, NAMES, PROMPTS};
use crate::stages::evaluate::arrays::{Arrays, ArraysError, Matrix};
use crate::stages::evaluate::artefact::{CaptionTexts, ClassTexts, SetArtefact, SetKind};
use crate::stages::evaluate::{chain, read_arrays, read_part, storage};

/// Captions embedded at once.
const TEXT_BATCH: usize = 512;

/// What came out, set by set.
pub(crate) struct ScoredSets {
    pub(crate) classification: Vec<ClassificationReport>,
    pub(crate) retrieval: Vec<RetrievalReport>,
    /// `classification-<index>.name` and `.prompts`, and the classes themselves as a note.
    pub(crate) embeddings: Arrays,
}

pub(crate) fn score(
    context: &Context,
    evaluations: &[Evaluation],
    setting: &Setting<'_>,
    facts: &[ModelFacts],
    encoder: &SentenceEncoder,
) -> Result<ScoredSets, Ending> {
    let total = evaluations.first().map_or(0, |first| first.manifest.sets.len() as u64);
    let job = Job { context, evaluations, setting, facts, encoder, total };
    let mut scored = ScoredSets {
        classification: Vec::new(),
        retrieval: Vec::new(),
        embeddings: Arrays::default(),
    };
    let mut notes = Vec::new();
    let Some(first) = evaluations.first() else { return Ok(scored) };
    for (position, set) in first.manifest.sets.iter().enumerate() {
        context.reporter.progress(position as u64, total, None);
        if context.is_stopping() {
            return Err(Ending::Stopped);
        }
        match set.kind {
            SetKind::Classification => {
                let (report, note) = job.classification(position, set, &mut scored.embeddings)?;
                scored.classification.push(report);
                notes.push(note);
            }
            SetKind::Retrieval => scored.retrieval.push(job.retrieval(position, set)?),
        }
    }
    context.reporter.progress(total, total, None);
    scored.embeddings.set_note(serde_json::json!({ "sets": notes }));
    Ok(scored)
}

struct Job<'a> {
    context: &'a Context,
    evaluations: &'a [Evaluation],
    setting: &'a Setting<'a>,
    facts: &'a [ModelFacts],
    encoder: &'a SentenceEncoder,
    /// Number of sets.
    total: u64,
}

impl<'a> Job<'a> {
    fn classification(
        &self,
        position: usize,
        set: &SetArtefact,
        embeddings: &mut Arrays,
    ) -> Result<(ClassificationReport, serde_json::Value), Ending> {
        let ClassTexts { classes, templates, .. } = self.words(position)?;
        let (models, arrays) = self.features(position, "class_features")?;
        let labels = arrays.indices("labels").map_err(|error| damaged(set, &error))?;
        let embedded = embed_classes::embed(self.encoder, &classes, &templates)
            .map_err(|error| Failure::Data { message: chain(&error) })?;
        let words = ClassWords {
            names: rows(&embedded.names).map_err(super::unroutable)?,
            prompts: rows(&embedded.prompts).map_err(super::unroutable)?,
        };
        let table = tables::classification(self.setting, &models, &labels, &words)?;
        let stem = format!("{}-{}", set.kind, set.index);
        embeddings.put_matrix(&format!("{stem}.{NAMES}"), embedded.names);
        embeddings.put_matrix(&format!("{stem}.{PROMPTS}"), embedded.prompts);
        let note = serde_json::json!({
            "index": set.index, "name": set.name, "classes": classes, "templates": templates,
        });
        #[expect(clippy::cast_precision_loss, reason = "numbers of classes are below 2^53")]
        let chance = 1.0 / classes.len().max(1) as f64;
        let report = ClassificationReport {
            index: set.index,
            name: set.name.clone(),
            pictures: set.pictures,
            classes: classes.len() as u64,
            unusable: set.unusable.clone(),
            chance,
            rows: table,
        };
        Ok((report, note))
    }

    fn retrieval(&self, position: usize, set: &SetArtefact) -> Result<RetrievalReport, Ending> {
        let CaptionTexts { captions, keys } = self.words(position)?;
        let (models, arrays) = self.features(position, "text_features")?;
        let flat = arrays.indices("pairs").map_err(|error| damaged(set, &error))?;
        let embedded = self.embed(position, &captions)?;
        let embedded = rows(&embedded).map_err(super::unroutable)?;

        let at = |index: u32| usize::try_from(index).expect("a u32 fits in usize");
        let mut relation = Relation {
            texts_of: vec![Vec::new(); keys.len()],
            pictures_of: vec![Vec::new(); captions.len()],
        };
        for pair in flat.chunks_exact(2) {
            let outside =
                || storage(format!("set {}: a pair names no picture or caption", set.name));
            relation.texts_of.get_mut(at(pair[0])).ok_or_else(outside)?.push(pair[1]);
            relation.pictures_of.get_mut(at(pair[1])).ok_or_else(outside)?.push(pair[0]);
        }
        let table = tables::retrieval(self.setting, &models, &relation, embedded)?;

        let conditions = self.setting.router.conditions(embedded).map_err(super::unroutable)?;
        let seed = self.context.spec.spec.seed;
        let held_out: Vec<HeldOut> = (0..)
            .zip(keys.iter().zip(&relation.texts_of))
            .filter_map(|(picture, (key, own))| {
                let caption = *own.get(deciding_caption(seed, key, own.len()))?;
                Some(HeldOut { picture, caption, cluster: conditions[at(caption)] })
            })
            .collect();
        let experts = self.context.spec.spec.clusters.experts;
        Ok(RetrievalReport {
            index: set.index,
            name: set.name.clone(),
            pictures: set.pictures,
            captions: captions.len() as u64,
            unusable: set.unusable.clone(),
            rows: table,
            by_cluster: by_cluster(&models, &held_out, experts),
        })
    }

    /// Every model's features of one set, and the first model's file for what is the same in all.
    fn features(&self, position: usize, texts: &str) -> Result<(Vec<Scored<'a>>, Arrays), Ending> {
        let mut models = Vec::new();
        let mut first = None;
        for (evaluation, facts) in self.evaluations.iter().zip(self.facts) {
            let set = &evaluation.manifest.sets[position];
            let arrays =
                read_arrays(self.context, evaluation.part, &evaluation.manifest, &set.features)?;
            let matrix = |name| arrays.matrix(name).map_err(|error| damaged(set, &error));
            let features = Features::new(&matrix("image_features")?, &matrix(texts)?);
            models.push(Scored { facts, features });
            first.get_or_insert(arrays);
        }
        let first = first.ok_or_else(|| storage("no model was evaluated".to_owned()))?;
        Ok((models, first))
    }

    fn words<T: serde::de::DeserializeOwned>(&self, position: usize) -> Result<T, Ending> {
        let first = &self.evaluations[0];
        let set = &first.manifest.sets[position];
        let bytes = read_part(self.context, first.part, &first.manifest, &set.texts)?;
        Ok(serde_json::from_slice(&bytes)
            .map_err(|error| storage(format!("set {}: {error}", set.name)))?)
    }

    fn embed(&self, position: usize, captions: &[String]) -> Result<Matrix, Ending> {
        let mut values = Vec::new();
        for chunk in captions.chunks(TEXT_BATCH) {
            if self.context.is_stopping() {
                return Err(Ending::Stopped);
            }
            // No set is done, but something is: the rank has not stalled.
            self.context.reporter.progress(position as u64, self.total, None);
            let rows = self.encoder.embed_vec(chunk);
            values.extend(rows.map_err(|error| Failure::Data { message: chain(&error) })?);
        }
        Ok(Matrix { rows: captions.len(), width: self.encoder.width(), values })
    }
}

fn damaged(set: &SetArtefact, error: &ArraysError) -> Ending {
    let message = format!("features of evaluation set {}: {error}", set.name);
    match error {
        ArraysError::NotFinite(_) => Failure::Data { message }.into(),
        ArraysError::Format(_)
        | ArraysError::Missing(_)
        | ArraysError::Kind { .. }
        | ArraysError::Note(_) => Failure::Storage { message }.into(),
    }
}

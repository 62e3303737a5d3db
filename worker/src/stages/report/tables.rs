//! The rows of the report: every model, every mixture, with what each cost.

use clade_core::ids::ModelId;
use clade_core::routing::{self, Rows, Weights};
use clade_core::spec::RoutingRule;

use super::document::{ClassificationRow, ModelFacts, RetrievalRow, Routed, RowKind, Subject};
use super::scores::{Features, Side, Weighted, classify, retrieve};
use super::setting::Setting;
use crate::context::Ending;

/// One model's features of a set, in the order of the run's models.
pub(crate) struct Scored<'a> {
    pub(crate) facts: &'a ModelFacts,
    pub(crate) features: Features,
}

/// The sentence embeddings of a set's classes, as the two rules want them.
pub(crate) struct ClassWords<'a> {
    /// Of the class names: the paper's rule.
    pub(crate) names: Rows<'a>,
    /// Of the prompts, averaged per class: the code's rule.
    pub(crate) prompts: Rows<'a>,
}

pub(crate) fn classification(
    setting: &Setting<'_>,
    models: &[Scored<'_>],
    labels: &[u32],
    words: &ClassWords<'_>,
) -> Result<Vec<ClassificationRow>, Ending> {
    let row = |subject: Subject, mixture: &[Weighted<'_>], routed: Option<Weights>| {
        let scores = classify(mixture, labels);
        ClassificationRow {
            subject,
            top1: scores.top1,
            top5: scores.top5,
            balanced: scores.balanced,
            top1_spread: spread(scores.top1, labels.len()),
            routed: routed.map(Routed::from),
        }
    };
    let mut rows: Vec<ClassificationRow> = models
        .iter()
        .map(|model| row(alone(model.facts), &[(&model.features, 1.0)], None))
        .collect();
    let best = rows
        .iter()
        .filter(|row| matches!(row.subject.models[..], [ModelId::Expert(_)]))
        .reduce(|best, row| if row.top1 > best.top1 { row } else { best })
        .map(|row| ClassificationRow { subject: hindsight(&row.subject), ..row.clone() });
    rows.extend(best);

    let experts = experts(models);
    let mut mix = |kind: RowKind, weights: Weights| {
        let mixture = weighted(&experts, &weights.weights);
        rows.push(row(together(models, kind), &mixture, Some(weights)));
    };
    mix(RowKind::Uniform, routing::uniform(experts.len()));
    for rule in &setting.rules {
        let (kind, weights) = match rule {
            RoutingRule::Paper => (
                RowKind::Paper,
                routing::paper_classification(&setting.router, words.names, &setting.routing),
            ),
            RoutingRule::Code => (
                RowKind::Code,
                routing::code_classification(&setting.router, words.prompts, &setting.routing),
            ),
        };
        mix(kind, weights.map_err(super::unroutable)?);
    }
    Ok(rows)
}

/// Which answers are right, from both sides.
pub(crate) struct Relation {
    pub(crate) texts_of: Vec<Vec<u32>>,
    pub(crate) pictures_of: Vec<Vec<u32>>,
}

pub(crate) fn retrieval(
    setting: &Setting<'_>,
    models: &[Scored<'_>],
    relation: &Relation,
    captions: Rows<'_>,
) -> Result<Vec<RetrievalRow>, Ending> {
    let row = |subject: Subject, mixture: &[Weighted<'_>], weights: Option<Weights>| RetrievalRow {
        subject,
        image_to_text: retrieve(mixture, Side::Images, &relation.texts_of, None),
        text_to_image: retrieve(mixture, Side::Texts, &relation.pictures_of, None),
        routed: weights.map(Routed::from),
        routed_queries: None,
    };
    let mut rows: Vec<RetrievalRow> = models
        .iter()
        .map(|model| row(alone(model.facts), &[(&model.features, 1.0)], None))
        .collect();
    let score = |row: &RetrievalRow| row.image_to_text.r1 + row.text_to_image.r1;
    let best = rows
        .iter()
        .filter(|row| matches!(row.subject.models[..], [ModelId::Expert(_)]))
        .reduce(|best, row| if score(row) > score(best) { row } else { best })
        .map(|row| RetrievalRow { subject: hindsight(&row.subject), ..row.clone() });
    rows.extend(best);

    let experts = experts(models);
    let uniform = routing::uniform(experts.len());
    let mixture = weighted(&experts, &uniform.weights);
    rows.push(row(together(models, RowKind::Uniform), &mixture, Some(uniform)));
    if setting.rules.contains(&RoutingRule::Paper) {
        let corpus = routing::paper_corpus(&setting.router, captions, &setting.routing);
        let corpus = corpus.map_err(super::unroutable)?;
        let queries = routing::paper_queries(&setting.router, captions, &setting.routing);
        let queries = queries.map_err(super::unroutable)?;
        let even = vec![1.0; experts.len()];
        let own: Vec<Vec<f64>> = (0..experts.len())
            .map(|expert| queries.iter().map(|query| query.weights[expert]).collect())
            .collect();
        rows.push(RetrievalRow {
            subject: together(models, RowKind::Paper),
            image_to_text: retrieve(
                &weighted(&experts, &corpus.weights),
                Side::Images,
                &relation.texts_of,
                None,
            ),
            text_to_image: retrieve(
                &weighted(&experts, &even),
                Side::Texts,
                &relation.pictures_of,
                Some(&own),
            ),
            routed: Some(corpus.into()),
            routed_queries: Some(mean(&queries)),
        });
    }
    Ok(rows)
}

fn experts<'a>(models: &'a [Scored<'_>]) -> Vec<&'a Features> {
    models
        .iter()
        .filter(|model| matches!(model.facts.model, ModelId::Expert(_)))
        .map(|model| &model.features)
        .collect()
}

fn weighted<'a>(experts: &[&'a Features], weights: &[f64]) -> Vec<Weighted<'a>> {
    experts.iter().copied().zip(weights.iter().copied()).collect()
}

fn alone(facts: &ModelFacts) -> Subject {
    Subject {
        kind: RowKind::Model,
        name: facts.model.to_string(),
        models: vec![facts.model],
        pairs_trained_on: facts.pairs_trained_on,
        encoder_passes: 1,
    }
}

fn hindsight(best: &Subject) -> Subject {
    let name = format!("best expert ({})", best.name);
    Subject { kind: RowKind::BestExpert, name, ..best.clone() }
}

/// All experts: the seed's pairs once, and each expert's own.
fn together(models: &[Scored<'_>], kind: RowKind) -> Subject {
    let name = match kind {
        RowKind::Uniform => "uniform average",
        RowKind::Paper => "routed, paper's rule",
        RowKind::Code => "routed, code's rule",
        RowKind::Model | RowKind::BestExpert => "experts",
    };
    let experts = || models.iter().filter(|it| matches!(it.facts.model, ModelId::Expert(_)));
    let ids: Vec<ModelId> = experts().map(|it| it.facts.model).collect();
    let own: u64 = experts().map(|it| it.facts.own_pairs).sum();
    let seed = experts().next().map_or(0, |it| it.facts.pairs_trained_on - it.facts.own_pairs);
    let encoder_passes = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    let name = name.to_owned();
    Subject { kind, name, models: ids, pairs_trained_on: seed + own, encoder_passes }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of queries are below 2^53")]
fn mean(queries: &[Weights]) -> Routed {
    let count = queries.len().max(1) as f64;
    let experts = queries.first().map_or(0, |query| query.weights.len());
    let weight = |expert: usize| queries.iter().map(|query| query.weights[expert]).sum::<f64>();
    Routed {
        weights: (0..experts).map(|expert| weight(expert) / count).collect(),
        entropy: queries.iter().map(|query| query.entropy).sum::<f64>() / count,
        evenness: queries.iter().map(|query| query.evenness).sum::<f64>() / count,
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of pictures are below 2^53")]
fn spread(share: f64, pictures: usize) -> f64 {
    (share * (1.0 - share) / pictures.max(1) as f64).sqrt()
}

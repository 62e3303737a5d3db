//! Each model on the held-out pairs of each cluster: does an expert know its own cluster best?
//!
//! A picture belongs to the cluster of its deciding caption, chosen as training chose it. Retrieval
//! is among the pairs of that cluster only, so that a cell says how well a model tells apart what
//! belongs together; equal captions are equally right.

use std::collections::BTreeMap;

use clade_core::ids::ModelId;

use super::document::{ByCluster, ByClusterRow, Cell, Diagonal};
use super::scores::{Features, Side, retrieve};
use super::tables::Scored;

/// Held-out pairs: picture, its deciding caption and the cluster of that caption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldOut {
    pub(crate) picture: u32,
    pub(crate) caption: u32,
    pub(crate) cluster: u32,
}

/// One cluster's pairs as a retrieval task of its own.
struct Task {
    pictures: Vec<i64>,
    captions: Vec<i64>,
    texts_of: Vec<Vec<u32>>,
    pictures_of: Vec<Vec<u32>>,
}

pub(crate) fn by_cluster(models: &[Scored<'_>], pairs: &[HeldOut], experts: u32) -> ByCluster {
    let tasks: Vec<Task> = (0..experts).map(|cluster| task(pairs, cluster)).collect();
    let rows: Vec<ByClusterRow> = models
        .iter()
        .map(|model| ByClusterRow {
            model: model.facts.model,
            cells: tasks.iter().map(|task| cell(&model.features, task)).collect(),
        })
        .collect();
    let diagonal = (0..experts).filter_map(|cluster| diagonal(&rows, cluster)).collect();
    let pairs = tasks.iter().map(|task| task.pictures.len() as u64).collect();
    ByCluster { pairs, rows, diagonal }
}

fn task(pairs: &[HeldOut], cluster: u32) -> Task {
    let mut task = Task {
        pictures: Vec::new(),
        captions: Vec::new(),
        texts_of: Vec::new(),
        pictures_of: Vec::new(),
    };
    let mut ids: BTreeMap<u32, u32> = BTreeMap::new();
    for (position, pair) in (0_u32..).zip(pairs.iter().filter(|pair| pair.cluster == cluster)) {
        let next = u32::try_from(ids.len()).expect("fewer captions than pairs");
        let caption = *ids.entry(pair.caption).or_insert(next);
        if caption == next {
            task.captions.push(i64::from(pair.caption));
            task.pictures_of.push(Vec::new());
        }
        task.pictures.push(i64::from(pair.picture));
        task.texts_of.push(vec![caption]);
        task.pictures_of[usize::try_from(caption).expect("a position")].push(position);
    }
    task
}

fn cell(features: &Features, task: &Task) -> Option<Cell> {
    if task.pictures.is_empty() {
        return None;
    }
    let own = features.select(&task.pictures, &task.captions);
    let image_to_text = retrieve(&[(&own, 1.0)], Side::Images, &task.texts_of, None).r1;
    let text_to_image = retrieve(&[(&own, 1.0)], Side::Texts, &task.pictures_of, None).r1;
    Some(Cell { image_to_text, text_to_image, mean: (image_to_text + text_to_image) / 2.0 })
}

fn diagonal(rows: &[ByClusterRow], cluster: u32) -> Option<Diagonal> {
    let column = usize::try_from(cluster).expect("a position");
    let own_id = ModelId::Expert(cluster);
    let mean = |row: &ByClusterRow| row.cells[column].map(|cell| cell.mean);
    let own = rows.iter().find(|row| row.model == own_id).and_then(mean)?;
    let other = rows
        .iter()
        .filter(|row| matches!(row.model, ModelId::Expert(_)) && row.model != own_id)
        .filter_map(|row| mean(row).map(|mean| (row.model, mean)))
        .reduce(|best, row| if row.1 > best.1 { row } else { best });
    let beaten_by = other.filter(|(_, mean)| *mean > own);
    Some(Diagonal {
        cluster: own_id,
        best: beaten_by.map_or(own_id, |(model, _)| model),
        wins: other.is_none_or(|(_, mean)| own > mean),
        margin: other.map(|(_, mean)| own - mean),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::evaluate::arrays::Matrix;
    use crate::stages::report::document::ModelFacts;
    use clade_core::ids::Step;

    fn facts(index: u32) -> ModelFacts {
        ModelFacts {
            model: ModelId::Expert(index),
            step: Step(2),
            own_steps: 1,
            own_pairs: 8,
            pairs_trained_on: 16,
            final_loss: None,
            final_loss_steps: 0,
        }
    }

    /// Pictures and captions on a circle: those of the model's own half are told apart.
    fn features(good: &[usize]) -> Features {
        let angle = |index: usize| [(index as f32).cos(), (index as f32).sin()];
        let images: Vec<f32> = (0..4).flat_map(angle).collect();
        let texts: Vec<f32> = (0..4)
            .flat_map(|index| angle(if good.contains(&index) { index } else { index ^ 1 }))
            .collect();
        let matrix = |values: Vec<f32>| Matrix { rows: 4, width: 2, values };
        Features::new(&matrix(images), &matrix(texts))
    }

    #[test]
    fn an_expert_that_tells_its_own_pairs_apart_wins_its_column() {
        let (first, second) = (facts(0), facts(1));
        let models = [
            Scored { facts: &first, features: features(&[0, 1]) },
            Scored { facts: &second, features: features(&[2, 3]) },
        ];
        let pairs: Vec<HeldOut> = (0..4)
            .map(|index| HeldOut { picture: index, caption: index, cluster: index / 2 })
            .collect();
        let found = by_cluster(&models, &pairs, 3);
        assert_eq!(found.pairs, [2, 2, 0]);
        let means = |row: usize| {
            found.rows[row].cells.iter().map(|it| it.map(|it| it.mean)).collect::<Vec<_>>()
        };
        assert_eq!(means(0), [Some(1.0), Some(0.0), None]);
        assert_eq!(means(1), [Some(0.0), Some(1.0), None]);
        assert!(found.diagonal.len() == 2 && found.diagonal.iter().all(|it| it.wins));
        assert_eq!(found.diagonal[0].margin, Some(1.0));
    }

    #[test]
    fn a_tie_is_no_win() {
        let (first, second) = (facts(0), facts(1));
        let models = [
            Scored { facts: &first, features: features(&[0, 1]) },
            Scored { facts: &second, features: features(&[0, 1]) },
        ];
        let pair = HeldOut { picture: 0, caption: 0, cluster: 0 };
        let found = by_cluster(&models, &[pair], 2);
        assert!(!found.diagonal[0].wins);
        assert_eq!(
            (found.diagonal[0].best, found.diagonal[0].margin),
            (ModelId::Expert(0), Some(0.0))
        );
    }

    #[test]
    fn a_caption_under_two_pictures_is_right_for_both() {
        let model = facts(0);
        let models = [Scored { facts: &model, features: features(&[0]) }];
        // Pictures 0 and 1 share caption 0, which looks like picture 0.
        let pairs = [0, 1].map(|picture| HeldOut { picture, caption: 0, cluster: 0 });
        let found = by_cluster(&models, &pairs, 1);
        let cell = found.rows[0].cells[0].unwrap();
        assert_eq!((cell.image_to_text, cell.text_to_image), (1.0, 1.0));
    }
}

//! Scores of mixtures of models, from features.
//!
//! A mixture is a weight per model; its logits are the weighted sum of the models' cosines, without
//! a logit scale. Everything is f64, so that whoever repeats it from the same f32 features, in
//! whatever order of summation, comes to the same ranks. Ties go to the lower class or position.

use tch::{Kind, Tensor};

use crate::stages::evaluate::arrays::Matrix;

/// Rows of logits held at once.
const CHUNK: i64 = 2048;

/// One model's features of one set, f64.
#[derive(Debug)]
pub(crate) struct Features {
    /// `[pictures, embed]`, unit rows.
    images: Tensor,
    /// `[texts, embed]`, unit rows: classes or captions.
    texts: Tensor,
}

impl Features {
    pub(crate) fn new(images: &Matrix, texts: &Matrix) -> Self {
        Self { images: tensor(images), texts: tensor(texts) }
    }
}

/// A model's features and its share in a mixture.
pub(crate) type Weighted<'a> = (&'a Features, f64);

/// How well pictures were put into classes; shares from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Accuracy {
    pub(crate) top1: f64,
    pub(crate) top5: f64,
    /// Mean recall of the classes that have pictures.
    pub(crate) balanced: f64,
}

/// Scores a mixture on a classification set.
pub(crate) fn classify(mixture: &[Weighted<'_>], labels: &[u32]) -> Accuracy {
    let mut seen = std::collections::BTreeMap::<u32, (u64, u64)>::new();
    let (mut top1, mut top5) = (0_u64, 0_u64);
    let mut next = labels.iter();
    chunks(mixture, Side::Images, None, |row| {
        let label = *next.next().expect("one label for each picture");
        let own = usize::try_from(label).expect("a class is a position");
        let better = row
            .iter()
            .enumerate()
            .filter(|&(class, &logit)| logit > row[own] || (logit == row[own] && class < own))
            .count();
        let (right, all) = seen.entry(label).or_default();
        *right += u64::from(better == 0);
        *all += 1;
        top1 += u64::from(better == 0);
        top5 += u64::from(better < 5);
    });
    let recalls: Vec<f64> = seen.values().map(|(right, all)| share(*right, *all)).collect();
    let pictures = labels.len() as u64;
    Accuracy {
        top1: share(top1, pictures),
        top5: share(top5, pictures),
        balanced: recalls.iter().sum::<f64>() / recalls.len().max(1) as f64,
    }
}

/// Recall of one direction of retrieval; shares from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Recall {
    pub(crate) r1: f64,
    pub(crate) r5: f64,
}

/// Which row of logits a query is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Each picture looks for its texts.
    Images,
    /// Each text looks for its pictures.
    Texts,
}

/// Scores a mixture on one direction of retrieval.
///
/// `right[query]` are the right answers; a query is right at k if any of them is among the first k.
/// `own_weights[model][query]` multiplies the mixture's weight where queries are weighed one by one.
pub(crate) fn retrieve(
    mixture: &[Weighted<'_>],
    side: Side,
    right: &[Vec<u32>],
    own_weights: Option<&[Vec<f64>]>,
) -> Recall {
    let (mut r1, mut r5) = (0_u64, 0_u64);
    let mut next = right.iter();
    chunks(mixture, side, own_weights, |row| {
        let right = next.next().expect("right answers for each query");
        let rank = rank_of_best(row, right);
        r1 += u64::from(rank < 1);
        r5 += u64::from(rank < 5);
    });
    let queries = right.len() as u64;
    Recall { r1: share(r1, queries), r5: share(r5, queries) }
}

/// How many wrong answers come before the best right one.
fn rank_of_best(row: &[f64], right: &[u32]) -> usize {
    let mut best: Option<(usize, f64)> = None;
    for &answer in right {
        let position = usize::try_from(answer).expect("an answer is a position");
        let logit = row[position];
        let leads = best.is_none_or(|(at, lead)| logit > lead || (logit == lead && position < at));
        if leads {
            best = Some((position, logit));
        }
    }
    let Some((at, lead)) = best else { return usize::MAX };
    row.iter().enumerate().filter(|&(i, &it)| it > lead || (it == lead && i < at)).count()
}

/// Hands every row of the mixture's logits to `visit`, in order.
fn chunks(
    mixture: &[Weighted<'_>],
    side: Side,
    own_weights: Option<&[Vec<f64>]>,
    mut visit: impl FnMut(&[f64]),
) {
    let Some((first, _)) = mixture.first() else { return };
    let (queries, answers) = first.sides(side);
    let (queries, width) = (queries.size()[0], answers.size()[0]);
    let width = usize::try_from(width).expect("sizes are not negative");
    for from in (0..queries).step_by(usize::try_from(CHUNK).expect("a small number")) {
        let count = CHUNK.min(queries - from);
        let mut sum: Option<Tensor> = None;
        for (index, (features, weight)) in mixture.iter().enumerate() {
            let (queries, answers) = features.sides(side);
            let mut logits = queries.narrow(0, from, count).matmul(&answers.tr()) * *weight;
            if let Some(own) = own_weights {
                let own = Tensor::from_slice(&own[index]).narrow(0, from, count);
                logits *= own.unsqueeze(1); // [queries, 1]
            }
            sum = Some(match sum {
                Some(sum) => sum + logits,
                None => logits,
            });
        }
        let logits = sum.map(|it| it.flatten(0, -1)).map(Vec::<f64>::try_from);
        let logits = logits.and_then(Result::ok).expect("logits are f64 in host memory");
        logits.chunks_exact(width.max(1)).for_each(&mut visit);
    }
}

impl Features {
    /// Queries and answers.
    const fn sides(&self, side: Side) -> (&Tensor, &Tensor) {
        match side {
            Side::Images => (&self.images, &self.texts),
            Side::Texts => (&self.texts, &self.images),
        }
    }

    /// The features of some pictures and some texts only.
    pub(crate) fn select(&self, images: &[i64], texts: &[i64]) -> Self {
        Self {
            images: self.images.index_select(0, &Tensor::from_slice(images)),
            texts: self.texts.index_select(0, &Tensor::from_slice(texts)),
        }
    }
}

fn tensor(matrix: &Matrix) -> Tensor {
    let size = |length: usize| i64::try_from(length).expect("sizes fit in 63 bits");
    Tensor::from_slice(&matrix.values)
        .view([size(matrix.rows), size(matrix.width)])
        .to_kind(Kind::Double)
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
fn share(right: u64, all: u64) -> f64 {
    right as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(images: &[[f32; 2]], texts: &[[f32; 2]]) -> Features {
        let matrix =
            |rows: &[[f32; 2]]| Matrix { rows: rows.len(), width: 2, values: rows.concat() };
        Features::new(&matrix(images), &matrix(texts))
    }

    #[test]
    fn balanced_accuracy_weighs_classes_and_top_five_looks_further() {
        let classes = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]];
        let model = features(&[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], &classes);
        let scores = classify(&[(&model, 1.0)], &[0, 0, 0, 1]);
        assert_eq!(scores, Accuracy { top1: 0.75, top5: 1.0, balanced: 0.5 });
    }

    #[test]
    fn a_tie_goes_to_the_lower_class() {
        let model = features(&[[1.0, 0.0]], &[[1.0, 0.0], [1.0, 0.0]]);
        assert_eq!(classify(&[(&model, 1.0)], &[0]).top1, 1.0);
        assert_eq!(classify(&[(&model, 1.0)], &[1]).top1, 0.0);
    }

    #[test]
    fn a_mixture_follows_its_weights() {
        let classes = [[1.0, 0.0], [0.0, 1.0]];
        let (right, wrong) = (features(&[[1.0, 0.0]], &classes), features(&[[0.0, 1.0]], &classes));
        let top1 = |a: f64, b: f64| classify(&[(&right, a), (&wrong, b)], &[0]).top1;
        assert_eq!((top1(0.6, 0.4), top1(0.4, 0.6)), (1.0, 0.0));
    }

    #[test]
    fn any_right_answer_among_the_first_counts() {
        let pictures = [[1.0, 0.0], [0.0, 1.0]];
        let model = features(&pictures, &[[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]);
        let texts_of = [vec![0, 1], vec![2]];
        let found = retrieve(&[(&model, 1.0)], Side::Images, &texts_of, None);
        assert_eq!(found, Recall { r1: 1.0, r5: 1.0 });
        let pictures_of = [vec![0], vec![1], vec![1]];
        let found = retrieve(&[(&model, 1.0)], Side::Texts, &pictures_of, None);
        assert_eq!(found, Recall { r1: 2.0 / 3.0, r5: 1.0 });
    }

    #[test]
    fn queries_can_be_weighed_one_by_one() {
        // The first model answers both queries with picture 0, the second with picture 1.
        let queries = [[1.0, 0.0], [1.0, 0.0]];
        let first = features(&[[1.0, 0.0], [0.0, 1.0]], &queries);
        let second = features(&[[0.0, 1.0], [1.0, 0.0]], &queries);
        let mixture = [(&first, 1.0), (&second, 1.0)];
        let own = [vec![0.9, 0.1], vec![0.1, 0.9]];
        let found = retrieve(&mixture, Side::Texts, &[vec![0], vec![1]], Some(&own));
        assert_eq!(found.r1, 1.0);
        let turned = [vec![0.1, 0.9], vec![0.9, 0.1]];
        let found = retrieve(&mixture, Side::Texts, &[vec![0], vec![1]], Some(&turned));
        assert_eq!(found.r1, 0.0);
    }
}

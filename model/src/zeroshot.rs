//! Zero-shot classification and retrieval, from features to shares of right answers.
//!
//! Similarities are cosines; no temperature is applied, since it changes no ranking and ensembles
//! mix cosines. Every share is in `0..=1`.

use tch::{Kind, Tensor};

use crate::clip::{ClipModel, unit_rows};
use crate::tokenizer::Tokenizer;

/// Embeds each class as the mean of its prompts' features, scaled back to unit length.
///
/// A template holds `{c}` or `{}` where the class name goes.
///
/// # Shapes
///
/// - returns `[classes, embed]`, rows of unit length
pub fn class_embeddings(
    model: &ClipModel,
    tokenizer: &Tokenizer,
    classes: &[String],
    templates: &[String],
) -> Tensor {
    let context = model.config().context_length();
    let embed = |class: &String| {
        let prompts = templates.iter().map(|it| it.replace("{c}", class).replace("{}", class));
        let prompts: Vec<String> = prompts.collect();
        let features = model.embed_tokens(&tokenizer.encode_batch(&prompts, context));
        features.mean_dim([0_i64].as_slice(), false, Kind::Float)
    };
    let means: Vec<Tensor> = classes.iter().map(embed).collect();
    unit_rows(&Tensor::stack(&means, 0))
}

/// How well pictures were put into classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    pub top1: f64,
    pub top5: f64,
    /// Mean of the recalls of the classes that have pictures.
    pub balanced: f64,
    /// Share of each class's pictures put right; none for a class without pictures.
    pub recalls: Vec<Option<f64>>,
    pub pictures: usize,
}

/// Scores logits against labels. Ties go to the lower class.
///
/// # Shapes
///
/// - `logits`: `[pictures, classes]`
/// - `labels`: `[pictures]`, each below `classes`
pub fn classification(logits: &Tensor, labels: &[u32]) -> Classification {
    let (pictures, classes) = logits.size2().expect("logits are [pictures, classes]");
    let pictures = usize::try_from(pictures).expect("sizes are not negative");
    let classes = usize::try_from(classes).expect("sizes are not negative");
    assert_eq!(pictures, labels.len(), "one label for each picture");
    let values = row_major(logits);
    let (mut top1, mut top5) = (0_usize, 0_usize);
    let (mut seen, mut right) = (vec![0_usize; classes], vec![0_usize; classes]);
    for (row, &label) in values.chunks_exact(classes.max(1)).zip(labels) {
        let label = usize::try_from(label).expect("a class index fits memory");
        let better = row
            .iter()
            .enumerate()
            .filter(|&(class, &value)| value > row[label] || (value == row[label] && class < label))
            .count();
        seen[label] += 1;
        top1 += usize::from(better == 0);
        right[label] += usize::from(better == 0);
        top5 += usize::from(better < 5);
    }
    let recalls: Vec<Option<f64>> = seen
        .iter()
        .zip(&right)
        .map(|(&seen, &right)| (seen > 0).then(|| right as f64 / seen as f64))
        .collect();
    let present: Vec<f64> = recalls.iter().copied().flatten().collect();
    let share = |count: usize| count as f64 / pictures.max(1) as f64;
    let balanced = present.iter().sum::<f64>() / present.len().max(1) as f64;
    Classification { top1: share(top1), top5: share(top5), balanced, recalls, pictures }
}

/// Share of right first answers in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retrieval {
    /// R@1 of pictures; right if the best text is any of the picture's own.
    pub image_to_text: f64,
    /// R@1 of texts.
    pub text_to_image: f64,
}

/// Scores similarities between pictures and texts, of which a picture may have several.
///
/// # Shapes
///
/// - `similarity`: `[images, texts]`
/// - `image_of_text`: `[texts]`, each below `images`
pub fn retrieval(similarity: &Tensor, image_of_text: &[u32]) -> Retrieval {
    let (images, texts) = similarity.size2().expect("similarities are [images, texts]");
    assert_eq!(usize::try_from(texts).ok(), Some(image_of_text.len()), "one image for each text");
    if images == 0 || texts == 0 {
        return Retrieval { image_to_text: 0.0, text_to_image: 0.0 };
    }
    let best_text = similarity.argmax(1, false); // [images]
    let best_image = similarity.argmax(0, false); // [texts]
    let owners: Vec<i64> = image_of_text.iter().copied().map(i64::from).collect();
    let owners = Tensor::from_slice(&owners);
    let own = Tensor::arange(images, (Kind::Int64, similarity.device()));
    let share = |right: Tensor| right.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    Retrieval {
        image_to_text: share(owners.index_select(0, &best_text).eq_tensor(&own)),
        text_to_image: share(best_image.eq_tensor(&owners)),
    }
}

fn row_major(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_kind(Kind::Float).contiguous();
    crate::native::values(&tensor).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_accuracy_weighs_classes_not_pictures() {
        let logits = Tensor::from_slice2(&[[0.9_f32, 0.1, 0.0], [0.8, 0.3, 0.0], [0.7, 0.2, 0.1]]);
        let scores = classification(&logits, &[0, 0, 1]);
        assert!((scores.top1 - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!((scores.top5, scores.balanced), (1.0, 0.5));
        assert_eq!(scores.recalls, vec![Some(1.0), Some(0.0), None]);
    }

    #[test]
    fn any_of_a_pictures_texts_is_a_right_answer() {
        // Texts 0 and 1 belong to picture 0, text 2 to picture 1.
        let similarity = Tensor::from_slice2(&[[0.1_f32, 0.9, 0.2], [0.4, 0.3, 0.1]]);
        let scores = retrieval(&similarity, &[0, 0, 1]);
        assert_eq!(scores.image_to_text, 0.5);
        assert!((scores.text_to_image - 1.0 / 3.0).abs() < 1e-12);
    }
}

//! Routing: a task's own words choose how much each expert counts.
//!
//! Every rule turns the sentence embeddings of a task's class names or captions into one weight
//! per expert (section 3.3 of "MoDE: CLIP Data Experts via Clustering", arXiv 2404.16030). The
//! weights then apply to cosine logits, without a logit scale. The paper and its reference code
//! differ, so both rules are here under their own names.
//!
//! Everything is computed in f64 from f32 embeddings, in a fixed order: equal inputs give equal
//! bits. Weights are at least 0 and sum to 1. An expert is represented by its *fine* centres.
//! Nothing here embeds text or reads files.

mod distance;

use distance::{Nearest, nearest, squared_distance};

/// The paper multiplies A by exp(½ − √|L|) for fewer classes than this; the code adds the same
/// number to a negative distance.
const FEW_CLASSES: usize = 10;
/// The paper divides λ by ln |L| for more classes than this; the code counts classes from here.
const MANY_CLASSES: usize = 200;
/// The offset in exp(½ − √|L|).
const FEW_OFFSET: f64 = 0.5;
/// The code's sharpness is this times log₁₀ max(10, |L| − 200).
const CODE_SHARPNESS: f64 = 5.0;
/// The code's smallest |L| − 200, so that its sharpness is never below `CODE_SHARPNESS`.
const CODE_FEWEST: f64 = 10.0;
/// The code divides its sums by this before the softmax.
const CODE_TEMPERATURE: f64 = 8.0;

/// Rows of equal width, one after the other; unit length, as sentence encoders give them.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    values: &'a [f32],
    width: usize,
}

impl<'a> Rows<'a> {
    pub fn new(values: &'a [f32], width: usize) -> Result<Self, RoutingError> {
        if width == 0 || !values.len().is_multiple_of(width) {
            return Err(RoutingError::Ragged { values: values.len(), width });
        }
        if let Some(position) = values.iter().position(|value| !value.is_finite()) {
            return Err(RoutingError::NotFinite { row: position / width });
        }
        Ok(Self { values, width })
    }

    pub const fn len(&self) -> usize {
        self.values.len() / self.width
    }

    pub const fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub const fn width(&self) -> usize {
        self.width
    }

    pub fn iter(&self) -> impl Iterator<Item = &'a [f32]> {
        self.values.chunks_exact(self.width)
    }

    fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }
}

/// Why no weights can be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoutingError {
    #[error("{values} numbers are no whole rows of width {width}")]
    Ragged { values: usize, width: usize },
    #[error("row {row} of the embeddings holds a number that is not finite")]
    NotFinite { row: usize },
    #[error("the task's embeddings are {found} wide, the router's centres {expected}")]
    Width { expected: usize, found: usize },
    #[error("a task without class names or captions cannot be routed")]
    NoWords,
    #[error("{centres} fine centres but {experts_of} entries of fine centre to expert")]
    Centres { centres: usize, experts_of: usize },
    #[error("fine centre {centre} belongs to expert-{expert}, but there are {experts} experts")]
    UnknownExpert { centre: usize, expert: u32, experts: u32 },
    #[error("{name} must be a finite number above 0")]
    Setting { name: &'static str },
}

/// The part of a router that decides: fine centres and the expert of each.
#[derive(Clone, Copy, Debug)]
pub struct Router<'a> {
    centres: Rows<'a>,
    expert_of: &'a [u32],
    experts: usize,
}

impl<'a> Router<'a> {
    pub fn new(
        centres: Rows<'a>,
        expert_of: &'a [u32],
        experts: u32,
    ) -> Result<Self, RoutingError> {
        if centres.is_empty() || centres.len() != expert_of.len() {
            return Err(RoutingError::Centres {
                centres: centres.len(),
                experts_of: expert_of.len(),
            });
        }
        if let Some(centre) = expert_of.iter().position(|&expert| expert >= experts) {
            return Err(RoutingError::UnknownExpert { centre, expert: expert_of[centre], experts });
        }
        let experts = usize::try_from(experts).expect("a u32 fits in usize");
        Ok(Self { centres, expert_of, experts })
    }

    /// The condition of each row: the expert of its nearest fine centre, ties to the lower centre.
    pub fn conditions(&self, rows: Rows<'_>) -> Result<Vec<u32>, RoutingError> {
        self.fits(rows)?;
        Ok(rows.iter().map(|row| self.expert_of[nearest(row, self.centres).centre]).collect())
    }

    fn fits(&self, rows: Rows<'_>) -> Result<(), RoutingError> {
        if rows.is_empty() {
            return Err(RoutingError::NoWords);
        }
        if rows.width() != self.centres.width() {
            return Err(RoutingError::Width {
                expected: self.centres.width(),
                found: rows.width(),
            });
        }
        Ok(())
    }

    fn expert(&self, centre: usize) -> usize {
        usize::try_from(self.expert_of[centre]).expect("a u32 fits in usize")
    }
}

/// What the rules leave open. The defaults are the paper's and the code's own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// λ of the paper's rules.
    pub lambda: f64,
    /// Divides what enters the softmax, beyond the rule's own constants: above 1 evens the weights out.
    pub temperature: f64,
    /// Takes the mean over the task's words instead of the sum, so that their number does not
    /// sharpen the weights. Neither the paper nor the code does.
    pub mean: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lambda: 0.2, temperature: 1.0, mean: false }
    }
}

impl Settings {
    fn check(&self) -> Result<(), RoutingError> {
        for (name, value) in [("lambda", self.lambda), ("temperature", self.temperature)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(RoutingError::Setting { name });
            }
        }
        Ok(())
    }
}

/// One weight per expert, and how undecided they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Sums to 1.
    pub weights: Vec<f64>,
    /// In nats: 0 if one expert has it all, ln n if all weigh the same.
    pub entropy: f64,
    /// The entropy as a share of ln n; 1 for a single expert, whose weights are even by necessity.
    pub evenness: f64,
}

/// The paper's rule for zero-shot classification: one weight vector for the task.
///
/// A(l, s) = exp(−‖e_l − e_s‖² / λ) of each class l and its nearest fine centre s only; the
/// weights are the softmax over experts of the sums over classes and the expert's fine centres.
/// Fewer than 10 classes: A times exp(½ − √|L|). More than 200: λ divided by ln |L|.
///
/// # Shapes
/// `classes`: `[classes, embed]`, unit rows: the embedding of each class name.
pub fn paper_classification(
    router: &Router<'_>,
    classes: Rows<'_>,
    settings: &Settings,
) -> Result<Weights, RoutingError> {
    router.fits(classes)?;
    settings.check()?;
    let count = classes.len();
    let size = as_f64(count);
    let factor = if count < FEW_CLASSES { (FEW_OFFSET - size.sqrt()).exp() } else { 1.0 };
    let lambda = if count > MANY_CLASSES { settings.lambda / size.ln() } else { settings.lambda };
    let mut sums = vec![0.0; router.experts];
    for class in classes.iter() {
        let Nearest { centre, squared } = nearest(class, router.centres);
        sums[router.expert(centre)] += factor * (-squared / lambda).exp();
    }
    Ok(weigh(sums, count, settings, 1.0))
}

/// The paper's rule for image→text retrieval: one weight vector for the whole corpus of captions.
///
/// As for classification, but every fine centre counts, and the factors for few and many classes
/// do not apply. A sum over thousands of captions nearly always puts all weight on one expert:
/// look at the entropy, and see [`Settings::mean`].
///
/// # Shapes
/// `captions`: `[captions, embed]`, unit rows.
pub fn paper_corpus(
    router: &Router<'_>,
    captions: Rows<'_>,
    settings: &Settings,
) -> Result<Weights, RoutingError> {
    router.fits(captions)?;
    settings.check()?;
    let mut sums = vec![0.0; router.experts];
    for caption in captions.iter() {
        add_affinities(router, caption, settings.lambda, &mut sums);
    }
    Ok(weigh(sums, captions.len(), settings, 1.0))
}

/// The paper's rule for text→image retrieval: each query has weights of its own.
///
/// p(c | q) ∝ exp(Σ over the fine centres s of c of A(q, s)).
///
/// # Shapes
/// `queries`: `[queries, embed]`, unit rows; returns one [`Weights`] per query.
pub fn paper_queries(
    router: &Router<'_>,
    queries: Rows<'_>,
    settings: &Settings,
) -> Result<Vec<Weights>, RoutingError> {
    router.fits(queries)?;
    settings.check()?;
    let each = queries.iter().map(|query| {
        let mut sums = vec![0.0; router.experts];
        add_affinities(router, query, settings.lambda, &mut sums);
        weigh(sums, 1, settings, 1.0)
    });
    Ok(each.collect())
}

/// The reference code's rule for zero-shot classification (MODE, section 3, "Code").
///
/// With d the plain distance of a class to its nearest fine centre, a = exp(½ − √|L|) below 10
/// classes and 0 from there, b = 5·log₁₀ max(10, |L| − 200): the weights are the softmax over
/// experts of Σ exp((a − d)·b) / 8 over the classes whose nearest centre is the expert's. An
/// expert that is nearest to no class has the sum 0, not the weight 0.
///
/// # Shapes
/// `classes`: `[classes, embed]`, unit rows: of each class the mean of its prompts' unit
/// embeddings, brought to unit length again.
pub fn code_classification(
    router: &Router<'_>,
    classes: Rows<'_>,
    settings: &Settings,
) -> Result<Weights, RoutingError> {
    router.fits(classes)?;
    settings.check()?;
    let count = classes.len();
    let size = as_f64(count);
    let bonus = if count < FEW_CLASSES { (FEW_OFFSET - size.sqrt()).exp() } else { 0.0 };
    let sharpness = CODE_SHARPNESS * (size - as_f64(MANY_CLASSES)).max(CODE_FEWEST).log10();
    let mut sums = vec![0.0; router.experts];
    for class in classes.iter() {
        let Nearest { centre, squared } = nearest(class, router.centres);
        sums[router.expert(centre)] += ((bonus - squared.sqrt()) * sharpness).exp();
    }
    Ok(weigh(sums, count, settings, CODE_TEMPERATURE))
}

/// Equal weights: what the uniform average of the experts uses.
pub fn uniform(experts: usize) -> Weights {
    describe(vec![1.0 / as_f64(experts); experts])
}

/// Adds A(row, s) of every fine centre s to its expert's sum.
fn add_affinities(router: &Router<'_>, row: &[f32], lambda: f64, sums: &mut [f64]) {
    for (centre, values) in router.centres.iter().enumerate() {
        sums[router.expert(centre)] += (-squared_distance(row, values) / lambda).exp();
    }
}

/// Softmax over the experts' sums.
fn weigh(mut sums: Vec<f64>, words: usize, settings: &Settings, own_temperature: f64) -> Weights {
    let words = if settings.mean { as_f64(words) } else { 1.0 };
    sums.iter_mut().for_each(|sum| *sum /= words * own_temperature * settings.temperature);
    let highest = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    sums.iter_mut().for_each(|sum| *sum = (*sum - highest).exp());
    let total: f64 = sums.iter().sum();
    sums.iter_mut().for_each(|sum| *sum /= total);
    describe(sums)
}

fn describe(weights: Vec<f64>) -> Weights {
    let terms = weights.iter().filter(|weight| **weight > 0.0).map(|weight| -weight * weight.ln());
    let entropy = terms.sum::<f64>().max(0.0);
    let most = as_f64(weights.len()).ln();
    let evenness = if weights.len() > 1 { entropy / most } else { 1.0 };
    Weights { weights, entropy, evenness }
}

#[expect(clippy::cast_precision_loss, reason = "counts of classes and experts are below 2^53")]
const fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;

use proptest::prelude::*;

use super::*;

/// Four centres on the axes of the plane: east and north are expert 0's, west and south expert 1's.
const AXES: [f32; 8] = [1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, -1.0];
const OF_AXES: [u32; 4] = [0, 0, 1, 1];

fn axes() -> Router<'static> {
    Router::new(Rows::new(&AXES, 2).unwrap(), &OF_AXES, 2).unwrap()
}

fn rows(values: &[f32]) -> Rows<'_> {
    Rows::new(values, 2).unwrap()
}

fn softmax(values: &[f64]) -> Vec<f64> {
    let total: f64 = values.iter().map(|value| value.exp()).sum();
    values.iter().map(|value| value.exp() / total).collect()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    }
}

/// `count` unit rows all around the circle, slightly off the axes.
fn circle(count: usize) -> Vec<f32> {
    (0..count)
        .flat_map(|index| {
            let angle = 0.3 + 2.1 * index as f32;
            [angle.cos(), angle.sin()]
        })
        .collect()
}

#[test]
fn the_papers_rule_on_ten_classes_counts_only_the_nearest_centre() {
    // Ten classes: no factor, λ as given. All of them due east, at distance 0 from centre 0.
    let classes = [1.0, 0.0].repeat(10);
    let found = paper_classification(&axes(), rows(&classes), &Settings::default()).unwrap();
    assert_close(&found.weights, &softmax(&[10.0, 0.0]));
}

#[test]
fn the_papers_rule_damps_a_task_of_few_classes() {
    // One class at (0.6, 0.8): nearest is north, squared distance 0.36 + 0.04 = 0.4.
    let class = [0.6, 0.8];
    let affinity = (-0.4_f64 / 0.2).exp() * (0.5_f64 - 1.0).exp();
    let found = paper_classification(&axes(), rows(&class), &Settings::default()).unwrap();
    for (found, expected) in found.weights.iter().zip(softmax(&[affinity, 0.0])) {
        assert!((found - expected).abs() < 1e-7, "{found} is not {expected}");
    }
}

#[test]
fn the_papers_rule_sharpens_lambda_beyond_two_hundred_classes() {
    let class = [0.6_f32, 0.8];
    let squared = squared_distance(&class, &[0.0, 1.0]);
    let expected = |classes: u32, lambda: f64| {
        softmax(&[f64::from(classes) * (-squared / lambda).exp() / 100.0, 0.0])
    };
    let settings = Settings { temperature: 100.0, ..Settings::default() };
    let at = |classes: usize| {
        paper_classification(&axes(), rows(&class.repeat(classes)), &settings).unwrap().weights
    };
    assert_close(&at(200), &expected(200, 0.2));
    assert_close(&at(201), &expected(201, 0.2 / 201_f64.ln()));
}

#[test]
fn retrieval_counts_every_centre_and_no_factor_for_few_captions() {
    // A caption due east: squared distances 0, 2, 4, 2.
    let caption = [1.0, 0.0];
    let (two, four) = ((-10.0_f64).exp(), (-20.0_f64).exp());
    let expected = softmax(&[1.0 + two, four + two]);
    let settings = Settings::default();
    let corpus = paper_corpus(&axes(), rows(&caption), &settings).unwrap();
    assert_close(&corpus.weights, &expected);
    let queries = paper_queries(&axes(), rows(&caption), &settings).unwrap();
    assert_eq!(queries, vec![corpus]);
}

#[test]
fn a_corpus_has_one_weight_vector_and_queries_one_each() {
    let captions = [1.0, 0.0, -1.0, 0.0];
    let settings = Settings::default();
    assert_close(&paper_corpus(&axes(), rows(&captions), &settings).unwrap().weights, &[0.5, 0.5]);
    let queries = paper_queries(&axes(), rows(&captions), &settings).unwrap();
    assert!(queries[0].weights[0] > 0.7 && queries[1].weights[1] > 0.7);
}

#[test]
fn the_codes_rule_matches_its_formula_for_few_and_for_many_classes() {
    let class = [0.6_f32, 0.8];
    let distance = squared_distance(&class, &[0.0, 1.0]).sqrt();
    let at = |classes: usize| {
        code_classification(&axes(), rows(&class.repeat(classes)), &Settings::default())
            .unwrap()
            .weights
    };
    // Four classes: a = exp(0.5 − 2), b = 5 · log10(10) = 5.
    let four = 4.0 * (((-1.5_f64).exp() - distance) * 5.0).exp();
    assert_close(&at(4), &softmax(&[four / 8.0, 0.0]));
    // Ten classes: a = 0.
    let ten = 10.0 * (-distance * 5.0).exp();
    assert_close(&at(10), &softmax(&[ten / 8.0, 0.0]));
    // 1,200 classes: b = 5 · log10(1000) = 15.
    let many = 1200.0 * (-distance * 15.0).exp();
    assert_close(&at(1200), &softmax(&[many / 8.0, 0.0]));
}

#[test]
fn the_mean_does_not_grow_with_the_number_of_words() {
    let settings = Settings { mean: true, ..Settings::default() };
    let once = paper_corpus(&axes(), rows(&[0.6, 0.8]), &settings).unwrap();
    let often = paper_corpus(&axes(), rows(&[0.6, 0.8].repeat(1000)), &settings).unwrap();
    assert_close(&often.weights, &once.weights);
}

#[test]
fn entropy_runs_from_nothing_to_ln_n() {
    assert!((uniform(4).entropy - 4_f64.ln()).abs() < 1e-12);
    assert!((uniform(4).evenness - 1.0).abs() < 1e-12);
    let captions = [1.0, 0.0].repeat(5000);
    let sure = paper_corpus(&axes(), rows(&captions), &Settings::default()).unwrap();
    assert!(sure.entropy < 1e-12 && sure.evenness < 1e-12, "{sure:?}");
}

#[test]
fn the_condition_of_a_row_is_that_of_its_nearest_centre_and_ties_go_low() {
    let found = axes().conditions(rows(&[0.9, 0.1, -0.9, 0.1, 0.0, 0.0])).unwrap();
    assert_eq!(found, [0, 1, 0]);
}

#[test]
fn a_router_or_task_that_does_not_fit_is_refused_by_name() {
    let three = [0.0_f32; 3];
    assert_eq!(Rows::new(&three, 2).unwrap_err(), RoutingError::Ragged { values: 3, width: 2 });
    let not_finite = [0.0, 1.0, f32::NAN, 0.0];
    assert_eq!(Rows::new(&not_finite, 2).unwrap_err(), RoutingError::NotFinite { row: 1 });
    assert_eq!(
        Router::new(rows(&AXES), &OF_AXES, 1).unwrap_err(),
        RoutingError::UnknownExpert { centre: 2, expert: 1, experts: 1 }
    );
    assert_eq!(
        Router::new(rows(&AXES), &[0, 1], 2).unwrap_err(),
        RoutingError::Centres { centres: 4, experts_of: 2 }
    );
    let settings = Settings::default();
    assert_eq!(
        paper_corpus(&axes(), Rows::new(&three, 3).unwrap(), &settings).unwrap_err(),
        RoutingError::Width { expected: 2, found: 3 }
    );
    assert_eq!(paper_queries(&axes(), rows(&[]), &settings).unwrap_err(), RoutingError::NoWords);
    let cold = Settings { temperature: 0.0, ..settings };
    assert_eq!(
        code_classification(&axes(), rows(&AXES), &cold).unwrap_err(),
        RoutingError::Setting { name: "temperature" }
    );
}

/// Every rule that gives one vector for a task.
type Rule = fn(&Router<'_>, Rows<'_>, &Settings) -> Result<Weights, RoutingError>;
const RULES: [Rule; 3] = [paper_classification, paper_corpus, code_classification];

proptest! {
    #[test]
    fn weights_sum_to_one_and_entropy_stays_within_ln_n(
        count in 1_usize..260,
        lambda in 0.05_f64..5.0,
        temperature in 0.1_f64..10.0,
    ) {
        let classes = circle(count);
        let settings = Settings { lambda, temperature, mean: false };
        for rule in RULES {
            let found = rule(&axes(), rows(&classes), &settings).unwrap();
            prop_assert!((found.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert!(found.weights.iter().all(|weight| *weight >= 0.0));
            prop_assert!(found.entropy >= 0.0 && found.entropy <= 2_f64.ln() + 1e-12);
        }
    }

    #[test]
    fn permuting_the_experts_permutes_the_weights(count in 1_usize..30, turn in 1_u32..4) {
        let classes = circle(count);
        let own: Vec<u32> = vec![0, 1, 2, 3];
        let turned: Vec<u32> = own.iter().map(|expert| (expert + turn) % 4).collect();
        for rule in RULES {
            let weights = |of: &[u32]| {
                let router = Router::new(rows(&AXES), of, 4).unwrap();
                rule(&router, rows(&classes), &Settings::default()).unwrap().weights
            };
            let (before, after) = (weights(&own), weights(&turned));
            for (expert, weight) in before.iter().enumerate() {
                let moved = (expert + turn as usize) % 4;
                prop_assert!((weight - after[moved]).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_task_that_lies_the_same_to_all_experts_is_routed_evenly(repeats in 1_usize..60) {
        let classes = AXES.repeat(repeats);
        for rule in RULES {
            let found = rule(&axes(), rows(&classes), &Settings::default()).unwrap();
            prop_assert!((found.weights[0] - 0.5).abs() < 1e-12);
        }
    }
}

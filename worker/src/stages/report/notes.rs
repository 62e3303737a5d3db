//! What a reader must know before comparing rows; made from the numbers, so that it stays true.

use super::document::{Report, RowKind};

pub(crate) fn of(report: &Report) -> Vec<String> {
    let mut notes = vec![
        "Each row states compute: more pairs trained on or more passes per picture is more compute, \
         not a better method. Rows with the same of both compare fairly: after equal steps, one \
         expert and the dense model."
            .to_owned(),
        "Mixtures add cosines, weighted, without a logit scale. \"Best expert\" is chosen on the \
         very set it is scored on: a bound for picking one, not a method."
            .to_owned(),
        format!(
            "One run with seed {}: differences within a standard deviation or two are chance. \
             Report mean and spread over several seeds before claiming more.",
            report.seed
        ),
    ];
    for set in &report.classification {
        let spread = set.rows.iter().map(|row| row.top1_spread).fold(0.0, f64::max);
        notes.push(format!(
            "{}: chance is {:.1} % over {} classes; with {} held-out pictures one standard \
             deviation of top-1 is up to {:.1} points.",
            set.name,
            set.chance * 100.0,
            set.classes,
            set.pictures,
            spread * 100.0
        ));
        for row in &set.rows {
            let Some(routed) = &row.routed else { continue };
            let routed_by_rule = match row.subject.kind {
                RowKind::Paper | RowKind::Code => true,
                RowKind::Model | RowKind::BestExpert | RowKind::Uniform => false,
            };
            if routed_by_rule && routed.evenness > 0.99 {
                notes.push(format!(
                    "{}: the weights of \"{}\" are nearly even ({:.1} % of the largest \
                     entropy), so it is close to the uniform average.",
                    set.name,
                    row.subject.name,
                    routed.evenness * 100.0
                ));
            }
        }
    }
    for set in &report.retrieval {
        notes.push(format!(
            "{}: captions that are equal count as one text, right for every picture that has it. \
             Routing follows the paper's retrieval rules (image→text: one weight vector for the \
             whole corpus; text→image: one per query); the code's rule is for classification only.",
            set.name
        ));
        let fewest = set.by_cluster.pairs.iter().min().copied().unwrap_or(0);
        if fewest < 100 {
            notes.push(format!(
                "{}: the smallest cluster has {fewest} held-out pairs; its column says little.",
                set.name
            ));
        }
    }
    notes
}

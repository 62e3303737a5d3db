//! The report for people: a pure function of the report as data.
//!
//! Tables are padded, so that they read the same in a terminal and in a browser.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clade_core::ids::ModelId;

use super::document::{
    ByCluster, ClassificationReport, ClusterFacts, ModelFacts, Report, RetrievalReport, Routed,
};

pub(crate) fn render(report: &Report) -> String {
    let mut text = format!("# Report of run {}\n", report.run);
    let Report { preset, global_batch, fine_clusters, experts, seed, lambda, .. } = report;
    let _ = writeln!(
        text,
        "\nModel {preset}, {global_batch} pairs per step, {fine_clusters} fine clusters, \
         {experts} experts, seed {seed}, λ = {lambda}.\n\
         Each row states compute: the pairs its models were trained on, all together and with the \
         seed's, and the picture encoders it runs per picture."
    );
    report.classification.iter().for_each(|set| classification(&mut text, set));
    report.retrieval.iter().for_each(|set| retrieval(&mut text, set));
    clusters(&mut text, &report.clusters);
    models(&mut text, &report.models);
    text.push_str("\n## How to read this\n\n");
    for note in &report.notes {
        let _ = writeln!(text, "- {note}");
    }
    text
}

fn classification(text: &mut String, set: &ClassificationReport) {
    let _ = writeln!(
        text,
        "\n## Zero-shot classification: {}\n\n{} held-out pictures, {} classes, chance {}.{}\n",
        set.name,
        set.pictures,
        set.classes,
        percent(set.chance),
        left_out(&set.unusable)
    );
    let mut table = Table::new(&[
        "model",
        "top-1",
        "± 1σ",
        "top-5",
        "balanced",
        "pairs trained on",
        "passes",
        "entropy",
    ]);
    for row in &set.rows {
        table.row([
            row.subject.name.clone(),
            percent(row.top1),
            points(row.top1_spread),
            percent(row.top5),
            percent(row.balanced),
            grouped(row.subject.pairs_trained_on),
            row.subject.encoder_passes.to_string(),
            row.routed.as_ref().map_or_else(String::new, entropy),
        ]);
    }
    table.write(text);
    let rows = set.rows.iter();
    weights(text, rows.filter_map(|row| Some((row.subject.name.as_str(), row.routed.as_ref()?))));
}

fn retrieval(text: &mut String, set: &RetrievalReport) {
    let _ = writeln!(
        text,
        "\n## Retrieval: {}\n\n{} held-out pictures, {} different captions.{}\n",
        set.name,
        set.pictures,
        set.captions,
        left_out(&set.unusable)
    );
    let mut table = Table::new(&[
        "model",
        "image→text R@1",
        "R@5",
        "text→image R@1",
        "R@5",
        "pairs trained on",
        "passes",
        "entropy",
    ]);
    for row in &set.rows {
        table.row([
            row.subject.name.clone(),
            percent(row.image_to_text.r1),
            percent(row.image_to_text.r5),
            percent(row.text_to_image.r1),
            percent(row.text_to_image.r5),
            grouped(row.subject.pairs_trained_on),
            row.subject.encoder_passes.to_string(),
            match (&row.routed, &row.routed_queries) {
                (Some(corpus), Some(queries)) => {
                    format!("{}; queries {}", entropy(corpus), entropy(queries))
                }
                (Some(corpus), None) => entropy(corpus),
                (None, _) => String::new(),
            },
        ]);
    }
    table.write(text);
    let rows = set.rows.iter();
    weights(text, rows.filter_map(|row| Some((row.subject.name.as_str(), row.routed.as_ref()?))));
    by_cluster(text, &set.name, &set.by_cluster);
}

fn by_cluster(text: &mut String, name: &str, table: &ByCluster) {
    let won = table.diagonal.iter().filter(|it| it.wins).count();
    let _ = writeln!(
        text,
        "\n### Experts by cluster: {name}\n\nR@1 among the held-out pairs of one cluster, mean of \
         both directions. The cluster's own expert is best in {won} of {} clusters (★ own expert \
         and best, ☆ own expert, not best).\n",
        table.diagonal.len()
    );
    let clusters: Vec<ModelId> =
        (0..).zip(&table.pairs).map(|(index, _)| ModelId::Expert(index)).collect();
    let header: Vec<String> = std::iter::once("model".to_owned())
        .chain(clusters.iter().map(|id| format!("pairs of {id}")))
        .collect();
    let mut rows = Table::new(&header.iter().map(String::as_str).collect::<Vec<_>>());
    let counts = table.pairs.iter().map(|pairs| grouped(*pairs));
    rows.row(std::iter::once("held-out pairs".to_owned()).chain(counts));
    for row in &table.rows {
        let cells = row.cells.iter().zip(&clusters).map(|(cell, cluster)| {
            let own = row.model == *cluster;
            let wins = table.diagonal.iter().any(|it| it.cluster == *cluster && it.wins);
            let mark = match (own, wins) {
                (true, true) => " ★",
                (true, false) => " ☆",
                (false, _) => "",
            };
            cell.map_or_else(|| "–".to_owned(), |cell| percent(cell.mean) + mark)
        });
        rows.row(std::iter::once(row.model.to_string()).chain(cells));
    }
    rows.write(text);
}

fn clusters(text: &mut String, clusters: &[ClusterFacts]) {
    text.push_str("\n## Clusters\n\n");
    let mut table =
        Table::new(&["cluster", "pairs", "share", "fine clusters", "most telling words"]);
    for cluster in clusters {
        let words: Vec<&str> = cluster.words.iter().map(|it| it.word.as_str()).collect();
        table.row([
            cluster.model.to_string(),
            grouped(cluster.pairs),
            percent(cluster.share),
            cluster.fine_clusters.to_string(),
            words.join(", "),
        ]);
    }
    table.write(text);
}

fn models(text: &mut String, models: &[ModelFacts]) {
    text.push_str("\n## Training\n\n");
    let mut table =
        Table::new(&["model", "steps", "own steps", "own pairs", "pairs trained on", "final loss"]);
    for model in models {
        table.row([
            model.model.to_string(),
            grouped(model.step.0),
            grouped(model.own_steps),
            grouped(model.own_pairs),
            grouped(model.pairs_trained_on),
            model.final_loss.map_or_else(|| "–".to_owned(), |loss| format!("{loss:.3}")),
        ]);
    }
    table.write(text);
}

/// One line of weights per routed row.
fn weights<'a>(text: &mut String, rows: impl Iterator<Item = (&'a str, &'a Routed)>) {
    text.push('\n');
    for (name, routed) in rows {
        let weights: Vec<String> =
            routed.weights.iter().map(|weight| format!("{weight:.3}")).collect();
        let _ = writeln!(text, "- weights, {name}: {}", weights.join(" "));
    }
}

fn left_out(unusable: &BTreeMap<String, u64>) -> String {
    if unusable.is_empty() {
        return String::new();
    }
    let causes: Vec<String> =
        unusable.iter().map(|(cause, number)| format!("{number} {cause}")).collect();
    format!(" Left out: {}.", causes.join(", "))
}

fn entropy(routed: &Routed) -> String {
    format!("{:.2} nats ({} of even)", routed.entropy, whole_percent(routed.evenness))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn whole_percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn points(share: f64) -> String {
    format!("{:.1}", share * 100.0)
}

/// A number with a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A padded Markdown table; the first and any last column of words to the left, numbers to the right.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|&it| it.to_owned()).collect()] }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect());
    }

    fn write(&self, text: &mut String) {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let left: Vec<bool> = self.rows[0]
            .iter()
            .map(|title| title == "model" || title.contains("words") || title == "cluster")
            .collect();
        for (index, row) in self.rows.iter().enumerate() {
            for ((cell, &width), &left) in row.iter().zip(&widths).zip(&left) {
                let _ = if left {
                    write!(text, "| {cell:<width$} ")
                } else {
                    write!(text, "| {cell:>width$} ")
                };
            }
            text.push_str("|\n");
            if index == 0 {
                for (&width, &left) in widths.iter().zip(&left) {
                    let dashes = "-".repeat(width);
                    text.push_str(&if left {
                        format!("|:{dashes}-")
                    } else {
                        format!("|-{dashes}:")
                    });
                }
                text.push_str("|\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_padded_and_keeps_its_columns_whatever_a_cell_holds() {
        let mut table = Table::new(&["model", "top-1"]);
        table.row(["seed".to_owned(), "9.1 %".to_owned()]);
        table.row(["a|b".to_owned(), "100.0 %".to_owned()]);
        let mut text = String::new();
        table.write(&mut text);
        assert_eq!(
            text,
            "| model |   top-1 |\n|:------|--------:|\n| seed  |   9.1 % |\n| a\\|b  | 100.0 % |\n"
        );
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}

//! `clade provenance`: answered from the manifests in the store, without a coordinator.

use clade_core::ids::{ModelId, RunName};
use clade_pairs::provenance::{CheckpointSaw, Found, ModelSaw, Role, WhoSaw, who_saw};
use clade_store::Store;
use comfy_table::{Table, presets};

use crate::args::{self, ProvenanceQuestion};
use crate::exit::{Exit, UsageError};
use crate::output;
use crate::render::one_line;

pub(super) async fn run(args: args::Provenance) -> anyhow::Result<Exit> {
    let ProvenanceQuestion::WhoSaw { key, store, run, json } = args.question;
    let store = Store::open(&absolute(&store)?)?;
    let run = match run {
        Some(run) => run.parse().map_err(|error| UsageError(format!("--run {run}: {error}")))?,
        None => only_run(&store).await?,
    };
    let answer = who_saw(&store, &run, &key).await?;
    if json {
        output::print(&serde_json::to_string_pretty(&answer)?)?;
    } else {
        output::print(&render(&answer, &run))?;
    }
    Ok(Exit::Done)
}

/// A store's address as the store wants it: a path may be relative, as in a run document.
fn absolute(store: &str) -> anyhow::Result<String> {
    let plain = store.strip_prefix("file://").or_else(|| store.strip_prefix("file:"));
    if plain.is_none() && store.contains("://") {
        return Ok(store.to_owned());
    }
    let path = std::path::absolute(plain.unwrap_or(store))?;
    if path.is_dir() {
        return Ok(format!("file://{}", path.display()));
    }
    let message = format!("--store: there is no folder {}; name the run's `store`", path.display());
    Err(UsageError(message).into())
}

/// The only run of a store.
async fn only_run(store: &Store) -> anyhow::Result<RunName> {
    let runs = store.folders("runs").await?;
    match runs.as_slice() {
        [run] => Ok(run.parse()?),
        [] => Err(UsageError(format!("{} holds no run; see --store", store.uri())).into()),
        several => {
            let several = several.join(", ");
            Err(UsageError(format!("there are several runs ({several}): --run names one")).into())
        }
    }
}

fn render(answer: &WhoSaw, run: &RunName) -> String {
    let WhoSaw { key, found, unusable, models } = answer;
    let mut text = match found {
        Some(Found { tar, offset, captions }) => {
            let captions: Vec<String> =
                captions.iter().map(|caption| format!("\"{}\"", one_line(caption))).collect();
            let captions = captions.join(", ");
            format!("{}  {} at byte {offset}  {captions}\n", one_line(key), one_line(tar))
        }
        None if unusable.is_empty() => {
            format!("{}  run {run} knows no such pair\n", one_line(key))
        }
        None => {
            let mut text = format!("{}  not used by run {run}\n", one_line(key));
            for (cause, place) in unusable {
                text += &format!("  {cause}: {} at byte {}\n", one_line(&place.tar), place.offset);
            }
            text
        }
    };
    if found.is_none() {
        return text;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty();
    table.set_header(["CHECKPOINT", "TIMES", "AT STEPS", "THROUGH SEED", "AS"]);
    let mut unseen = Vec::new();
    for ModelSaw { model, role, checkpoints } in models {
        let seen: Vec<&CheckpointSaw> =
            checkpoints.iter().filter(|it| it.times + it.through_seed > 0).collect();
        if seen.is_empty() {
            unseen.push(reason(*model, *role, checkpoints.len()));
        }
        for it in seen {
            table.add_row([
                it.checkpoint.to_string(),
                it.times.to_string(),
                steps(it),
                if *model == ModelId::Seed { String::new() } else { it.through_seed.to_string() },
                role.map_or(String::new(), name),
            ]);
        }
    }
    if table.row_count() > 0 {
        text += &format!("\n{}\n", table.trim_fmt());
    }
    if !unseen.is_empty() {
        text += &format!("\nnot seen by: {}\n", unseen.join(", "));
    }
    text + "\nCounted from the order of data up to each checkpoint in the store. A pair that could not be decoded\n\
            kept its place in the batch and was masked out: the ranks' logs name such pairs.\n"
}

fn steps(it: &CheckpointSaw) -> String {
    match (it.first_step, it.last_step) {
        (Some(first), Some(last)) if first < last => format!("{first} .. {last}"),
        (Some(first), _) => first.to_string(),
        (None, _) => String::new(),
    }
}

fn name(role: Role) -> String {
    match role {
        Role::Own => "own".to_owned(),
        Role::Foreign { pass } => format!("foreign, pass {pass}"),
    }
}

fn reason(model: ModelId, role: Option<Role>, checkpoints: usize) -> String {
    match (role, checkpoints) {
        (_, 0) => format!("{model} (no checkpoint yet)"),
        (None, _) => model.to_string(),
        (Some(_), _) => format!("{model} (not drawn yet)"),
    }
}

#[cfg(test)]
mod tests {
    use clade_core::ids::{CheckpointRef, Digest, Incarnation, Step};
    use expect_test::expect;

    use super::*;

    fn saw(model: ModelId, times: u64, through_seed: u64) -> CheckpointSaw {
        CheckpointSaw {
            checkpoint: CheckpointRef {
                model,
                incarnation: Incarnation(2),
                step: Step(432),
                manifest: Digest([0; 32]),
            },
            times,
            first_step: (times > 0).then_some(7),
            last_step: (times > 0).then_some(if times > 1 { 140 } else { 7 }),
            through_seed,
        }
    }

    #[test]
    fn the_table_names_checkpoints_counts_and_who_did_not() {
        let model = |model, role, checkpoints| ModelSaw { model, role, checkpoints };
        let [seed, none, own, far] =
            [ModelId::Seed, ModelId::Expert(0), ModelId::Expert(1), ModelId::Expert(2)];
        let answer = WhoSaw {
            key: "000042".to_owned(),
            found: Some(Found {
                tar: "/data/00003.tar".to_owned(),
                offset: 1_536,
                captions: vec!["a lemon".to_owned()],
            }),
            unusable: vec![],
            models: vec![
                model(seed, Some(Role::Own), vec![saw(seed, 3, 0)]),
                model(none, None, vec![saw(none, 0, 0)]),
                model(own, Some(Role::Own), vec![saw(own, 1, 3)]),
                model(far, Some(Role::Foreign { pass: 1 }), vec![]),
            ],
        };
        let text = render(&answer, &"clipart".parse().unwrap());
        expect![[r#"
            000042  /data/00003.tar at byte 1536  "a lemon"

             CHECKPOINT                TIMES  AT STEPS  THROUGH SEED  AS
             seed gang-2 step-432      3      7 .. 140                own
             expert-1 gang-2 step-432  1      7         3             own

            not seen by: expert-0, expert-2 (no checkpoint yet)

            Counted from the order of data up to each checkpoint in the store. A pair that could not be decoded
            kept its place in the batch and was masked out: the ranks' logs name such pairs.
        "#]]
        .assert_eq(&text);
        let unknown = WhoSaw { found: None, ..answer };
        let text = render(&unknown, &"clipart".parse().unwrap());
        assert_eq!(text, "000042  run clipart knows no such pair\n");
    }
}

//! A copy of the scheduler and its simulation with every mutant in it, and its build.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::plant::{self, Mutant};

const SCHEDULE: &str = "core/src/schedule";

/// Which mutant is on, for the whole life of a process. A panic ends it at once: one failure suffices.
const SWITCH: &str = r#"
pub(crate) fn on(id: u32) -> bool {
    static PLANTED: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *PLANTED.get_or_init(|| {
        std::panic::set_hook(Box::new(|why| {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "{why}");
            std::process::exit(101)
        }));
        std::env::var("CLADE_MUTANT").ok().and_then(|id| id.parse().ok()).unwrap_or(u32::MAX)
    }) == id
}
"#;

pub(crate) struct Copy {
    root: PathBuf,
    place: PathBuf,
    pub(crate) mutants: Vec<Mutant>,
    /// Numbers of mutants that do not build.
    pub(crate) refused: BTreeSet<u32>,
}

/// The two programs that try mutants out.
pub(crate) struct Built {
    pub(crate) tests: PathBuf,
    pub(crate) simulation: PathBuf,
}

impl Copy {
    /// Copies what the scheduler and its simulation need to build.
    pub(crate) fn new(root: &Path, place: &Path) -> anyhow::Result<Self> {
        // Always the same place: cargo would build everything anew in another.
        let to = place.join("source");
        let rewritten = sources(root, Path::new(SCHEDULE))?.into_iter().map(|it| to.join(it));
        let rewritten: Vec<PathBuf> = rewritten.chain([to.join("core/src/lib.rs")]).collect();
        for it in ["Cargo.lock", "core", "tests/sim", "deploy/demo/run.yaml"] {
            copy_all(&root.join(it), &to.join(it), &rewritten)?;
        }
        let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
        let members = "members = [\"core\", \"tests/sim\"]";
        let few = |line| if str::starts_with(line, "members = ") { members } else { line };
        let manifest: Vec<&str> = manifest.lines().map(few).collect();
        write(&to.join("Cargo.toml"), manifest.join("\n").as_bytes())?;
        let library = fs::read_to_string(root.join("core/src/lib.rs"))?;
        let library = format!("#![allow(warnings)]\n{library}\nmod mutants;\n");
        write(&to.join("core/src/lib.rs"), library.as_bytes())?;
        write(&to.join("core/src/mutants.rs"), SWITCH.as_bytes())?;
        let (root, place) = (root.to_owned(), place.to_owned());
        Ok(Self { root, place, mutants: vec![], refused: BTreeSet::new() })
    }

    /// Builds the copy, leaving out mutants that do not build until the rest does; `refused` are known.
    pub(crate) fn build(&mut self, refused: &BTreeSet<&str>) -> anyhow::Result<Built> {
        self.list()?;
        let known = (0..).zip(&self.mutants).filter(|(_, it)| refused.contains(&*it.name));
        self.refused = known.map(|(id, _)| id).collect();
        let tests = ["test", "--no-run", "--package", "clade-core", "--lib"];
        let simulation = ["build", "--package", "clade-sim", "--bins"];
        Ok(Built { tests: self.build_one(&tests)?, simulation: self.build_one(&simulation)? })
    }

    fn build_one(&mut self, what: &[&str]) -> anyhow::Result<PathBuf> {
        loop {
            let planted = self.plant()?;
            let output = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()))
                .args(what)
                .arg("--message-format=json")
                .current_dir(self.place.join("source"))
                .env("CARGO_TARGET_DIR", &self.place)
                .stderr(Stdio::inherit())
                .output()?;
            let messages = String::from_utf8(output.stdout)?;
            let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
            let messages: Vec<Value> = messages.collect();
            if output.status.success() {
                let program = |it: &Value| Some(PathBuf::from(it["executable"].as_str()?));
                return messages.iter().rev().find_map(program).context("cargo built nothing");
            }
            let before = self.refused.len();
            for error in messages.iter().filter(|it| it["message"]["level"] == "error") {
                let spans = error["message"]["spans"].as_array();
                let mut spans: Vec<&Value> = spans.into_iter().flatten().collect();
                spans.sort_by_key(|it| it["is_primary"] != true);
                let found = spans.into_iter().find_map(|span| mutant_at(&planted, span));
                self.refused.extend(found);
            }
            let new = self.refused.len() - before;
            ensure!(new > 0, "the copy does not build: {}", first_error(&messages));
            println!("{new} mutants do not build: again without them");
        }
    }

    /// Writes every file of the scheduler with its mutants; returns the text of each.
    fn plant(&mut self) -> anyhow::Result<BTreeMap<String, String>> {
        let texts = self.list()?;
        for (file, text) in &texts {
            write(&self.place.join("source").join(file), text.as_bytes())?;
        }
        Ok(texts)
    }

    /// Every file of the scheduler with its mutants.
    fn list(&mut self) -> anyhow::Result<BTreeMap<String, String>> {
        self.mutants.clear();
        let mut texts = BTreeMap::new();
        for file in sources(&self.root, Path::new(SCHEDULE))? {
            let text = fs::read_to_string(self.root.join(&file))?;
            let planted = plant::plant(&file, &text, &self.refused, &mut self.mutants)
                .with_context(|| file.clone())?;
            texts.insert(file, planted);
        }
        let names: BTreeSet<&str> = self.mutants.iter().map(|it| &*it.name).collect();
        ensure!(names.len() == self.mutants.len(), "two mutants have one name");
        Ok(texts)
    }
}

/// The innermost mutant within whose branch an error stands.
fn mutant_at(planted: &BTreeMap<String, String>, span: &Value) -> Option<u32> {
    let regions = plant::regions(planted.get(span["file_name"].as_str()?)?).ok()?;
    let at = |line: &str, column: &str| Some((span[line].as_u64()?, span[column].as_u64()?));
    let (from, to) = (at("line_start", "column_start")?, at("line_end", "column_end")?);
    let place = |it: proc_macro2::LineColumn| (it.line as u64, it.column as u64 + 1);
    let around = regions.into_iter().filter(|it| place(it.from) <= from && to <= place(it.to));
    around.max_by_key(|it| it.from).map(|it| it.id)
}

fn first_error(messages: &[Value]) -> &str {
    let told = messages.iter().filter(|it| it["message"]["level"] == "error");
    told.filter_map(|it| it["message"]["rendered"].as_str()).next().unwrap_or("cargo says why")
}

/// Files of a folder and the folders in it, but those of tests, as paths from the root.
fn sources(root: &Path, folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut files = vec![];
    let mut entries = fs::read_dir(root.join(folder))?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let name = entry.file_name();
        let path = folder.join(&name);
        if name == "tests" || name == "tests.rs" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            files.extend(sources(root, &path)?);
        } else {
            files.push(path.to_str().context("a path that is no text")?.to_owned());
        }
    }
    Ok(files)
}

/// Copies a file or a folder, but what is written there otherwise.
fn copy_all(from: &Path, to: &Path, but: &[PathBuf]) -> anyhow::Result<()> {
    if but.iter().any(|it| it == to) {
        return Ok(());
    }
    if !from.is_dir() {
        return write(to, &fs::read(from)?);
    }
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy_all(&from.join(&name), &to.join(&name), but)?;
    }
    Ok(())
}

/// Leaves a file alone that is as it should be: cargo goes by its time.
fn write(to: &Path, text: &[u8]) -> anyhow::Result<()> {
    if fs::read(to).is_ok_and(|it| it == text) {
        return Ok(());
    }
    fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
    Ok(fs::write(to, text)?)
}

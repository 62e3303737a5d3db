//! Pins what the core may depend on: whoever adds to it changes this list, and says why.

#[test]
fn the_core_depends_on_nothing_that_does_io() {
    let manifest = include_str!("../Cargo.toml");
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    let names: Vec<&str> = dependencies
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|it| !it.is_empty())
        .collect();
    assert_eq!(names, ["humantime", "serde", "serde-saphyr", "strsim", "thiserror", "xxhash-rust"]);
}

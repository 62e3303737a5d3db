use super::*;

fn planted(text: &str, refused: &[u32]) -> (String, Vec<String>) {
    let mut mutants = vec![];
    let refused = refused.iter().copied().collect();
    let planted = plant("a.rs", text, &refused, &mut mutants).unwrap();
    (planted, mutants.into_iter().map(|it| it.name).collect())
}

const SMALL: &str = "
struct A;
impl A {
    const fn is_open(&self, left: u32) -> bool {
        left > 0 && !self.closed
    }
}
#[cfg(test)]
mod tests {
    fn helper() -> bool { 1 == 1 }
}
";

#[test]
fn every_small_change_has_a_name_and_a_branch_before_what_was_written() {
    let (text, names) = planted(SMALL, &[]);
    assert_eq!(
        names,
        [
            "a.rs:4:14:A::is_open: replace the body with true",
            "a.rs:4:14:A::is_open: replace the body with false",
            "a.rs:5:14:A::is_open: replace > with ==",
            "a.rs:5:14:A::is_open: replace > with <",
            "a.rs:5:14:A::is_open: replace > with >=",
            "a.rs:5:21:A::is_open: delete !",
            "a.rs:5:18:A::is_open: replace && with ||",
        ]
    );
    let regions: BTreeSet<u32> = regions(&text).unwrap().into_iter().map(|it| it.id).collect();
    assert_eq!(regions, (0..7).collect());
    assert!(!text.contains("const fn"), "{text}");
}

#[test]
fn what_does_not_build_is_left_out_and_keeps_its_number() {
    let (text, names) = planted(SMALL, &[0, 3]);
    assert_eq!(names.len(), 7);
    let regions: BTreeSet<u32> = regions(&text).unwrap().into_iter().map(|it| it.id).collect();
    assert_eq!(regions, [1, 2, 4, 5, 6].into());
}

#[test]
fn conditions_with_a_name_in_them_keep_their_chain() {
    let (_, names) = planted("fn f() { if let Some(it) = g() && it && h() { i(); } }", &[]);
    assert_eq!(names, ["a.rs:1:4:f: replace the body with ()"]);
}

#[test]
fn arms_before_a_wildcard_are_deleted_by_a_guard_and_guards_are_decided() {
    let text = "fn f(it: u8) { match it { 1 => a(), n if n == 2 => b(), _ => () } }";
    let (planted, names) = planted(text, &[0, 1, 2]);
    let what: Vec<&str> = names.iter().map(|it| it.rsplit(": ").next().unwrap()).collect();
    assert_eq!(
        what,
        [
            "replace the body with ()",
            "replace == with !=",
            "replace the guard with true",
            "replace the guard with false",
            "delete the arm 1",
            "delete the arm n",
        ]
    );
    assert!(planted.contains("1 if (!crate::mutants::on(4u32)) => a()"), "{planted}");
}

#[test]
fn a_function_that_yields_is_made_to_yield_nothing() {
    let (text, names) = planted("fn f() -> impl Iterator<Item = u8> { [1].into_iter() }", &[]);
    assert_eq!(names, ["a.rs:1:4:f: yield nothing"]);
    assert!(text.contains("Iterator::take"), "{text}");
}

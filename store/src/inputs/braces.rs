//! Writes out the braces of a pattern, as shells do.

/// Braces may not stand for more texts than this.
const MAX_EXPANSION: usize = 1_000_000;

/// More would only be written to exhaust somebody.
const MAX_BRACES: usize = 64;

/// The texts that `text` stands for, in order: `{a,b}` is a choice, `{000..041}` and `{0..40..10}`
/// are numbers as wide as the wider end is written if an end begins with 0, and braces may stand
/// within braces.
pub(super) fn expand(text: &str) -> Result<Vec<String>, &'static str> {
    if text.matches('{').count() > MAX_BRACES {
        return Err("it has more than 64 braces");
    }
    let Some(open) = text.find('{') else {
        return Ok(vec![text.to_owned()]);
    };
    let (items, rest) = items(&text[open + 1..])?;
    let mut choices = Vec::new();
    match items[..] {
        [item] if !item.contains('{') && item.contains("..") => {
            choices = range(item).ok_or("a range is written `{000000..000041}`")?;
        }
        _ => {
            for item in items {
                if !item.contains('{') && item.contains("..") {
                    return Err("a range among choices has braces of its own: `{{00..09},20}`");
                }
                choices.extend(expand(item)?);
            }
        }
    }
    let rests = expand(rest)?;
    if choices.len().saturating_mul(rests.len()) > MAX_EXPANSION {
        return Err("it stands for more than a million paths");
    }
    let before = &text[..open];
    let join = |choice| rests.iter().map(move |rest| format!("{before}{choice}{rest}"));
    Ok(choices.iter().flat_map(join).collect())
}

/// What stands between commas up to the brace that closes, and what follows that.
fn items(text: &str) -> Result<(Vec<&str>, &str), &'static str> {
    let (mut depth, mut begin, mut items) = (0_usize, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b'}' => {
                items.push(&text[begin..at]);
                return Ok((items, &text[at + 1..]));
            }
            b',' if depth == 0 => {
                items.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => (),
        }
    }
    Err("a `{` has no `}`")
}

/// `from..to` or `from..to..step`.
fn range(text: &str) -> Option<Vec<String>> {
    let mut ends = text.split("..");
    let (from, to, step) = (ends.next()?, ends.next()?, ends.next());
    if ends.next().is_some() {
        return None;
    }
    let (first, last): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
    let step: u64 = step.map_or(Some(1), |step| step.parse().ok().filter(|step| *step > 0))?;
    if first.abs_diff(last) / step >= MAX_EXPANSION as u64 {
        return None;
    }
    let is_padded = [from, to].iter().any(|end| end.len() > 1 && end.starts_with('0'));
    let width = if is_padded { from.len().max(to.len()) } else { 0 };
    let numbers = (0..=first.abs_diff(last) / step).map(|count| {
        let number = if first <= last { first + count * step } else { first - count * step };
        format!("{number:0width$}")
    });
    Some(numbers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        expand(text).map_or_else(str::to_owned, |texts| texts.join(" "))
    }

    #[test]
    fn braces_are_written_out_as_shells_do() {
        for (text, expected) in [
            ("plain", "plain"),
            ("x-{08..11}.tar", "x-08.tar x-09.tar x-10.tar x-11.tar"),
            ("{8..11}", "8 9 10 11"),
            ("{1..003}", "001 002 003"),
            ("{0..20..10}", "0 10 20"),
            ("{03..01}", "03 02 01"),
            ("{a,b}{1..2}", "a1 a2 b1 b2"),
            ("{a,}b", "ab b"),
            ("{{00..02},{10..11},x}.t", "00.t 01.t 02.t 10.t 11.t x.t"),
            ("a{b{c,d},e}f", "abcf abdf aef"),
            ("{one}", "one"),
        ] {
            assert_eq!(written(text), expected, "{text}");
        }
    }

    #[test]
    fn what_braces_cannot_mean_is_said() {
        for (text, expected) in [
            ("{1..", "has no `}`"),
            ("{a{b}", "has no `}`"),
            ("{b..a}", "a range is written"),
            ("{1..2..0}", "a range is written"),
            ("{1..2..3..4}", "a range is written"),
            ("{1..9999999}", "a range is written"),
            ("{1..3,7}", "braces of its own"),
            ("{1..2000}{1..2000}", "more than a million"),
        ] {
            assert!(written(text).contains(expected), "{text}: {}", written(text));
        }
    }
}

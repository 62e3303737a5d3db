//! libtorch's errors where tch has only panics for them: caught, in libtorch's own words.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;

/// How tch writes the error that it panics with.
const OPENING: &str = "called `Result::unwrap()` on an `Err` value: Torch(\"";

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body`; an error of libtorch's comes back as its first line, and nothing is printed.
///
/// # Panics
///
/// Any other panic of `body` is told of as usual and goes on.
pub fn catch<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    be_quiet_where_asked();
    let before = IS_QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(body));
    IS_QUIET.set(before);
    result.or_else(|panic| {
        let said = panic.downcast_ref::<String>().and_then(|said| words(said));
        said.map_or_else(|| resume_unwind(panic), Err)
    })
}

/// libtorch's words in a panic of tch's.
fn words(said: &str) -> Option<String> {
    let rest = said.strip_prefix(OPENING)?;
    // Written for debugging: ends of lines are escaped.
    rest.split("\\n").next().map(str::to_owned)
}

/// Lets the usual panic message through, except while a thread is in [`catch`] and the panic is
/// libtorch's error.
fn be_quiet_where_asked() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let said = info.payload_as_str().unwrap_or_default();
            if !(IS_QUIET.get() && said.starts_with(OPENING)) {
                usual(info);
            }
        }));
    });
}

/// Whether libtorch's words mean that there is no more memory.
pub fn is_out_of_memory(said: &str) -> bool {
    [
        "out of memory",
        "can't allocate memory",
        "not enough memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
        "bad_alloc",
    ]
    .iter()
    .any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    #[test]
    fn libtorchs_errors_come_back_in_one_line_and_other_panics_go_on() {
        let one = Tensor::from_slice(&[1.0_f32, 2.0]);
        let said = catch(|| one.matmul(&Tensor::from_slice(&[1.0_f32]))).unwrap_err();
        assert!(
            said.contains("size") && !said.contains('\n') && !said.contains("Result"),
            "{said}"
        );
        let huge = catch(|| one.expand([1 << 40, 1 << 10, 2], false).contiguous()).unwrap_err();
        assert!(is_out_of_memory(&huge), "{huge}");
        let other = catch_unwind(|| catch(|| panic!("a mistake of ours")));
        assert!(other.is_err());
        assert_eq!(catch(|| 7), Ok(7));
    }
}

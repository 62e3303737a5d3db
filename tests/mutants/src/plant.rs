//! Rewrites a source file so that it holds all its mutants, each behind a switch of its own.
//!
//! A mutant of an expression is a branch before it: `if crate::mutants::on(7) { a != b } else { a == b }`.
//! The branch holds what was written, without other mutants, since only one is ever on. What stands in
//! macros, constants and tests is left alone.

use std::collections::BTreeSet;

use proc_macro2::LineColumn;
use quote::ToTokens as _;
use syn::spanned::Spanned as _;
use syn::visit::Visit;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Arm, Attribute, BinOp, Block, Expr, ExprIf, ImplItemFn, ItemConst, ItemFn, ItemImpl, ItemMod,
    ItemStatic, Pat, Signature, Type, UnOp, parse_quote,
};

use crate::values;

/// One small change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mutant {
    /// `file:line:column:function: what`
    pub(crate) name: String,
}

/// Where the branch of a mutant stands in a rewritten file.
pub(crate) struct Region {
    pub(crate) id: u32,
    pub(crate) from: LineColumn,
    pub(crate) to: LineColumn,
}

/// Plants all mutants of `text` but the refused ones, and notes their names at the end of `mutants`:
/// where a mutant stands there is its number.
pub(crate) fn plant(
    file: &str,
    text: &str,
    refused: &BTreeSet<u32>,
    mutants: &mut Vec<Mutant>,
) -> syn::Result<String> {
    let mut tree = syn::parse_file(text)?;
    Planter { file, refused, mutants, around: vec![] }.visit_file_mut(&mut tree);
    Ok(prettyplease::unparse(&tree))
}

/// Where the branches of all mutants stand in what [`plant`] wrote.
pub(crate) fn regions(planted: &str) -> syn::Result<Vec<Region>> {
    struct Finder(Vec<Region>);
    impl<'ast> Visit<'ast> for Finder {
        fn visit_expr_if(&mut self, it: &'ast ExprIf) {
            let condition = it.cond.to_token_stream().to_string().replace(' ', "");
            let id = condition.strip_prefix("crate::mutants::on(");
            if let Some(id) = id.and_then(|it| it.strip_suffix("u32)")?.parse().ok()) {
                let span = it.then_branch.span();
                self.0.push(Region { id, from: span.start(), to: span.end() });
            }
            syn::visit::visit_expr_if(self, it);
        }
    }
    let mut finder = Finder(vec![]);
    finder.visit_file(&syn::parse_file(planted)?);
    Ok(finder.0)
}

struct Planter<'a> {
    file: &'a str,
    refused: &'a BTreeSet<u32>,
    mutants: &'a mut Vec<Mutant>,
    /// Names of the types and functions around, from the outside.
    around: Vec<String>,
}

impl Planter<'_> {
    /// Notes a mutant; returns its number unless it is refused.
    fn note(&mut self, at: LineColumn, what: &str) -> Option<u32> {
        let id = u32::try_from(self.mutants.len()).expect("a few thousand mutants");
        let (file, line, column) = (self.file, at.line, at.column + 1);
        let name = format!("{file}:{line}:{column}:{}: {what}", self.around.join("::"));
        self.mutants.push(Mutant { name });
        (!self.refused.contains(&id)).then_some(id)
    }

    /// Puts a changed expression before `now`, which may hold mutants already.
    fn branch(&mut self, at: LineColumn, what: &str, changed: &Expr, now: &mut Expr) {
        if let Some(id) = self.note(at, what) {
            *now = parse_quote!((if crate::mutants::on(#id) { #changed } else { #now }));
        }
    }

    fn function(&mut self, attrs: &[Attribute], signature: &mut Signature, block: &mut Block) {
        if is_test(attrs) {
            return;
        }
        self.around.push(signature.ident.to_string());
        // A switch is no constant.
        signature.constness = None;
        let at = signature.ident.span().start();
        let mut values = values::of_output(&signature.output);
        // A default that is its own default never returns; an empty body is one already.
        if signature.ident == "default" || block.stmts.is_empty() {
            values.clear();
        }
        let written = block.to_token_stream().to_string();
        let planted: Vec<(Option<u32>, Expr)> = values
            .into_iter()
            .filter(|value| written != format!("{{ {} }}", value.to_token_stream()))
            .map(|value| {
                let what = format!("replace the body with {}", value.to_token_stream());
                (self.note(at, &what), value)
            })
            .collect();
        let nothing = values::is_iterator(&signature.output)
            .then(|| self.note(at, "yield nothing"))
            .flatten();
        self.visit_block_mut(block);
        for (id, value) in planted.into_iter().rev() {
            let Some(id) = id else { continue };
            block.stmts.insert(0, parse_quote!(if crate::mutants::on(#id) { return #value; }));
        }
        if let Some(id) = nothing {
            let most = quote::quote!((if crate::mutants::on(#id) { 0 } else { usize::MAX }));
            *block = parse_quote!({ ::std::iter::Iterator::take(#block, #most) });
        }
        self.around.pop();
    }
}

impl VisitMut for Planter<'_> {
    fn visit_item_fn_mut(&mut self, it: &mut ItemFn) {
        self.function(&it.attrs, &mut it.sig, &mut it.block);
    }

    fn visit_impl_item_fn_mut(&mut self, it: &mut ImplItemFn) {
        self.function(&it.attrs, &mut it.sig, &mut it.block);
    }

    fn visit_item_impl_mut(&mut self, it: &mut ItemImpl) {
        let name = match &*it.self_ty {
            Type::Path(path) => path.path.segments.last().map(|it| it.ident.to_string()),
            _ => None,
        };
        self.around.push(name.unwrap_or_default());
        visit_mut::visit_item_impl_mut(self, it);
        self.around.pop();
    }

    fn visit_item_mod_mut(&mut self, it: &mut ItemMod) {
        if !is_test(&it.attrs) {
            visit_mut::visit_item_mod_mut(self, it);
        }
    }

    // Constants are computed when they are built.
    fn visit_item_const_mut(&mut self, _: &mut ItemConst) {}
    fn visit_item_static_mut(&mut self, _: &mut ItemStatic) {}
    fn visit_type_mut(&mut self, _: &mut Type) {}

    fn visit_expr_mut(&mut self, it: &mut Expr) {
        let written = it.clone();
        visit_mut::visit_expr_mut(self, it);
        match &written {
            Expr::Binary(binary) if !has_let(&written) => {
                let operator = binary.op.to_token_stream().to_string();
                for other in others(&operator) {
                    let op = syn::parse_str::<BinOp>(other).expect("an operator");
                    let changed = Expr::Binary(syn::ExprBinary { op, ..binary.clone() });
                    let what = format!("replace {operator} with {other}");
                    self.branch(binary.op.span().start(), &what, &changed, it);
                }
            }
            Expr::Unary(unary) => {
                let operator = match unary.op {
                    UnOp::Not(_) => "!",
                    UnOp::Neg(_) => "-",
                    _ => return,
                };
                let what = format!("delete {operator}");
                self.branch(unary.op.span().start(), &what, &unary.expr, it);
            }
            Expr::Match(written) => {
                let has_wildcard = written.arms.iter().any(|arm| matches!(arm.pat, Pat::Wild(_)));
                let Expr::Match(now) = it else { return };
                for arm in now.arms.iter_mut().filter(|_| has_wildcard) {
                    self.delete_arm(arm);
                }
            }
            _ => (),
        }
    }

    fn visit_arm_mut(&mut self, arm: &mut Arm) {
        self.visit_expr_mut(&mut arm.body);
        let Pat::Guard(guarded) = &mut arm.pat else { return };
        if has_let(&guarded.guard) {
            return;
        }
        let at = guarded.if_token.span().start();
        self.visit_expr_mut(&mut guarded.guard);
        for value in [parse_quote!(true), parse_quote!(false)] {
            let what = format!("replace the guard with {}", Expr::to_token_stream(&value));
            self.branch(at, &what, &value, &mut guarded.guard);
        }
    }
}

impl Planter<'_> {
    fn delete_arm(&mut self, arm: &mut Arm) {
        if matches!(arm.pat, Pat::Wild(_)) {
            return;
        }
        let what = format!("delete the arm {}", pattern(&arm.pat));
        let Some(id) = self.note(arm.pat.span().start(), &what) else { return };
        match &mut arm.pat {
            Pat::Guard(guarded) => {
                let now = &guarded.guard;
                *guarded.guard = parse_quote!((!crate::mutants::on(#id)) && #now);
            }
            other => *other = Pat::Guard(guarded(other, id)),
        }
    }
}

fn guarded(pat: &Pat, id: u32) -> syn::PatGuard {
    syn::PatGuard {
        attrs: vec![],
        pat: Box::new(pat.clone()),
        if_token: Default::default(),
        guard: parse_quote!((!crate::mutants::on(#id))),
    }
}

/// A pattern without its guard, on one line.
fn pattern(pat: &Pat) -> String {
    match pat {
        Pat::Guard(it) => it.pat.to_token_stream().to_string(),
        _ => pat.to_token_stream().to_string(),
    }
}

fn is_test(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|it| {
        let text = it.meta.to_token_stream().to_string();
        text == "test" || text == "cfg (test)"
    })
}

/// Whether a chain of conditions holds a `let`, whose names the rest may use.
fn has_let(it: &Expr) -> bool {
    match it {
        Expr::Let(_) => true,
        Expr::Binary(it) => has_let(&it.left) || has_let(&it.right),
        _ => false,
    }
}

/// What an operator is replaced with: those that tests overlook most easily.
fn others(operator: &str) -> &'static [&'static str] {
    match operator {
        "==" => &["!="],
        "!=" => &["=="],
        "<" => &["==", ">", "<="],
        ">" => &["==", "<", ">="],
        "<=" => &[">"],
        ">=" => &["<"],
        "&&" => &["||"],
        "||" => &["&&"],
        "+" => &["-", "*"],
        "-" => &["+", "/"],
        "*" => &["+", "/"],
        "/" => &["%", "*"],
        "%" => &["/", "+"],
        "|" => &["&", "^"],
        "&" => &["|", "^"],
        "+=" => &["-=", "*="],
        "-=" => &["+=", "/="],
        "*=" => &["+=", "/="],
        "/=" => &["%=", "*="],
        "|=" => &["&=", "^="],
        "&=" => &["|=", "^="],
        _ => &[],
    }
}

#[cfg(test)]
mod tests;

//! What a function may be made to return, as far as its written type tells.

use quote::ToTokens as _;
use syn::{Expr, GenericArgument, PathArguments, ReturnType, Type, TypePath, parse_quote};

/// More values than this would try the same thing again.
const MOST: usize = 4;

/// Values for the body of a function; none if its type tells none.
pub(crate) fn of_output(output: &ReturnType) -> Vec<Expr> {
    match output {
        ReturnType::Default => vec![parse_quote!(())],
        ReturnType::Type(_, ty) => of(ty),
    }
}

/// Whether a type is `impl Iterator`: such a function is made to yield nothing.
pub(crate) fn is_iterator(output: &ReturnType) -> bool {
    let ReturnType::Type(_, ty) = output else { return false };
    ty.to_token_stream().to_string().starts_with("impl Iterator")
}

fn of(ty: &Type) -> Vec<Expr> {
    let mut values = match ty {
        Type::Path(path) => of_path(path),
        Type::Tuple(tuple) => tuple.elems.iter().map(of).fold(vec![parse_quote!(())], product),
        Type::Reference(it) if it.elem.to_token_stream().to_string() == "str" => {
            vec![parse_quote!(""), parse_quote!("xyzzy")]
        }
        _ => vec![],
    };
    values.truncate(MOST);
    values
}

/// Every tuple of `so_far` with every one of `next` at its end.
fn product(so_far: Vec<Expr>, next: Vec<Expr>) -> Vec<Expr> {
    let longer = |tuple: &Expr| {
        let mut elems = match tuple {
            Expr::Tuple(tuple) => tuple.elems.clone(),
            _ => unreachable!("products are tuples"),
        };
        if !elems.empty_or_trailing() {
            elems.push_punct(Default::default());
        }
        next.iter().map(|last| parse_quote!((#elems #last,))).collect::<Vec<Expr>>()
    };
    so_far.iter().flat_map(longer).collect()
}

fn of_path(path: &TypePath) -> Vec<Expr> {
    let Some(last) = path.path.segments.last() else { return vec![] };
    let mut inner = match &last.arguments {
        PathArguments::AngleBracketed(all) => all.args.iter().find_map(|it| match it {
            GenericArgument::Type(ty) => Some(of(ty)),
            _ => None,
        }),
        _ => None,
    };
    let inner = inner.get_or_insert_default().iter();
    match last.ident.to_string().as_str() {
        "bool" => vec![parse_quote!(true), parse_quote!(false)],
        "u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64" => {
            vec![parse_quote!(0), parse_quote!(1)]
        }
        "String" => vec![parse_quote!(String::new()), parse_quote!("xyzzy".into())],
        "Option" => {
            let some = inner.map(|value| parse_quote!(Some(#value)));
            [parse_quote!(None)].into_iter().chain(some).collect()
        }
        "Result" => inner.map(|value| parse_quote!(Ok(#value))).collect(),
        "Vec" => {
            let one = inner.take(1).map(|value| parse_quote!(vec![#value]));
            [parse_quote!(vec![])].into_iter().chain(one).collect()
        }
        _ => vec![parse_quote!(Default::default())],
    }
}

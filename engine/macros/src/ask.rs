//! `#[derive(Ask)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Error, LitStr, Result, Type};

use crate::attribute::{once, unknown};

pub(crate) fn expand(item: &DeriveInput) -> Result<TokenStream> {
    let (mut name, mut answer): (Option<LitStr>, Option<Type>) = (None, None);
    for attribute in item.attrs.iter().filter(|a| a.path().is_ident("ask")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                once(&mut name, &meta, meta.value()?.parse()?)
            } else if meta.path.is_ident("answer") {
                once(&mut answer, &meta, meta.value()?.parse()?)
            } else {
                Err(unknown(&meta, "`name = \"..\"` or `answer = Type`"))
            }
        })?;
    }
    let (Some(name), Some(answer)) = (name, answer) else {
        return Err(Error::new_spanned(
            &item.ident,
            "a question has a name and a type of answer: add `#[ask(name = \"..\", answer = Type)]`",
        ));
    };
    if name.value().is_empty() {
        return Err(Error::new_spanned(name, "the name of a question is not empty"));
    }
    let question = &item.ident;
    let (generics, arguments, bounds) = item.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #generics ::stepgraph::Ask for #question #arguments #bounds {
            type Answer = #answer;
            const NAME: &'static str = #name;
        }
    })
}

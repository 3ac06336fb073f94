//! `#[derive(Route)]`.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Result, ext::IdentExt};

use crate::attribute::{Errors, without_generics};

pub(crate) fn expand(item: &DeriveInput) -> Result<TokenStream> {
    let name = &item.ident;
    let Data::Enum(data) = &item.data else {
        return Err(Error::new_spanned(
            name,
            "routes are an enum of unit variants: write one variant for each way on",
        ));
    };
    without_generics(item, "routes are an enum without parameters: remove them")?;
    if data.variants.is_empty() {
        return Err(Error::new_spanned(
            name,
            "routes need a way on: write a variant for each",
        ));
    }
    let (mut errors, mut seen) = (Errors::default(), HashSet::new());
    let (mut variants, mut labels) = (Vec::new(), Vec::new());
    for variant in &data.variants {
        let label = snake_case(&variant.ident.unraw().to_string());
        errors.keep(match variant.fields {
            Fields::Unit => Ok(()),
            Fields::Named(_) | Fields::Unnamed(_) => Err(Error::new_spanned(
                variant,
                "a route carries no data: put the data into the update and route by a unit variant",
            )),
        });
        if !seen.insert(label.clone()) {
            let message = format!("another route already has the label `{label}`: rename one of them");
            errors.keep::<()>(Err(Error::new_spanned(&variant.ident, message)));
        }
        variants.push(&variant.ident);
        labels.push(label);
    }
    errors.finish()?;
    let positions = 0..variants.len();
    Ok(quote! {
        #[automatically_derived]
        impl ::stepgraph::Route for #name {
            const ALL: &'static [Self] = &[#(Self::#variants),*];

            fn label(self) -> &'static str {
                match self { #(Self::#variants => #labels),* }
            }

            fn index(self) -> usize {
                match self { #(Self::#variants => #positions),* }
            }
        }
    })
}

/// `TryAgain` is `try_again`, `HTTPError` is `http_error`.
fn snake_case(name: &str) -> String {
    let mut label = String::with_capacity(name.len() + 4);
    let mut before: Option<char> = None;
    let mut rest = name.chars().peekable();
    while let Some(letter) = rest.next() {
        if letter.is_uppercase() {
            let starts_word = before.is_some_and(|before| {
                before.is_lowercase()
                    || before.is_numeric()
                    || (before.is_uppercase() && rest.peek().is_some_and(|next| next.is_lowercase()))
            });
            if starts_word {
                label.push('_');
            }
        }
        label.extend(letter.to_lowercase());
        before = Some(letter);
    }
    label
}

#[cfg(test)]
mod tests {
    use super::snake_case;

    #[test]
    fn a_label_parts_the_words_of_a_variant() {
        for (variant, label) in [
            ("Accept", "accept"),
            ("TryAgain", "try_again"),
            ("HTTPError", "http_error"),
            ("Top10Found", "top10_found"),
            ("A", "a"),
            ("Try_Again", "try_again"),
        ] {
            assert_eq!(snake_case(variant), label);
        }
    }
}

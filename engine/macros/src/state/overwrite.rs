//! Setting a field outright, past its reducer.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use super::{
    parse::{Item, StateField},
    update::present,
};

/// Whether the update writes the field, in either way.
pub(super) fn written(field: &StateField) -> TokenStream {
    let name = &field.name;
    let overwrite = field.overwrite().map(|overwrite| quote!(|| self.#overwrite.is_some()));
    quote!(self.#name.is_some() #overwrite)
}

/// Whether the update leaves the field alone.
pub(super) fn unwritten(field: &StateField) -> TokenStream {
    let name = &field.name;
    let overwrite = field.overwrite().map(|overwrite| quote!(&& self.#overwrite.is_none()));
    quote!(self.#name.is_none() #overwrite)
}

/// The value of a field that its reducer is passed over for.
pub(super) fn declare(field: &StateField) -> Option<TokenStream> {
    let (overwrite, ty) = (field.overwrite()?, &field.ty);
    let present = present(field);
    let about = format!(
        "The new value of `{}`, whatever else is written to it in the step.",
        field.label
    );
    Some(quote_spanned! {ty.span()=>
        #[doc = #about]
        #[serde(
            deserialize_with = #present,
            skip_serializing_if = "::core::option::Option::is_none"
        )]
        pub #overwrite: ::core::option::Option<#ty>
    })
}

pub(super) fn setter(field: &StateField) -> Option<TokenStream> {
    let (overwrite, ty) = (field.overwrite()?, &field.ty);
    let about = format!(
        "Makes this the value of `{}`, past its reducer. What else is written to it in the step is dropped; two such \
         writes in one step are a conflict.",
        field.label
    );
    Some(quote! {
        #[doc = #about]
        #[must_use]
        pub fn #overwrite(mut self, value: impl ::core::convert::Into<#ty>) -> Self {
            self.#overwrite = ::core::option::Option::Some(::core::convert::Into::into(value));
            self
        }
    })
}

/// `overwritten` and `forget`, if any field can be overwritten.
pub(super) fn overwritten(item: &Item) -> Option<TokenStream> {
    let folded = || item.fields.iter().enumerate();
    let inserts: Vec<_> = folded()
        .filter_map(|(position, field)| {
            let overwrite = field.overwrite()?;
            Some(quote! {
                if self.#overwrite.is_some() {
                    fields.insert(#position);
                }
            })
        })
        .collect();
    if inserts.is_empty() {
        return None;
    }
    let forgets = folded().filter_map(|(position, field)| {
        let (name, overwrite) = (&field.name, field.overwrite()?);
        Some(quote! {
            #position => {
                self.#name = ::core::option::Option::None;
                self.#overwrite = ::core::option::Option::None;
            }
        })
    });
    Some(quote! {
        fn overwritten(&self, _: &[::stepgraph::Field]) -> ::stepgraph::FieldSet {
            let mut fields = ::stepgraph::FieldSet::new();
            #(#inserts)*
            fields
        }

        fn forget(&mut self, _: &[::stepgraph::Field], field: usize) {
            match field {
                #(#forgets)*
                _ => {}
            }
        }
    })
}

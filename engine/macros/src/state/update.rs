//! `{Name}Update`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};

use super::{
    overwrite::{self, unwritten, written},
    parse::{Item, StateField},
    secret,
};

pub(super) fn expand(item: &Item) -> TokenStream {
    let (visibility, name, update) = (&item.visibility, &item.name, &item.update);
    let about = format!("Some of the fields of [`{name}`], to be merged into it.");
    let fields = item
        .fields
        .iter()
        .map(declare)
        .chain(item.fields.iter().filter_map(overwrite::declare));
    let setters = item
        .fields
        .iter()
        .map(setter)
        .chain(item.fields.iter().filter_map(overwrite::setter));
    let implement = implement(item);
    let shown = item.fields.iter().map(|field| {
        let (written, label) = (written(field), &field.label);
        quote! {
            if #written {
                shown.field(#label, &::core::format_args!(".."));
            }
        }
    });
    let shown_name = update.to_string();
    quote! {
        #[doc = #about]
        #[derive(
            ::core::clone::Clone,
            ::core::default::Default,
            ::stepgraph::derive_support::serde::Serialize,
            ::stepgraph::derive_support::serde::Deserialize,
        )]
        #[serde(crate = "::stepgraph::derive_support::serde", default, deny_unknown_fields)]
        #[allow(clippy::option_option, reason = "`null` and absent are two things")]
        #visibility struct #update { #(#fields),* }

        impl #update { #(#setters)* }

        #implement

        #[automatically_derived]
        impl ::core::convert::From<()> for #update {
            fn from((): ()) -> Self {
                <Self as ::core::default::Default>::default()
            }
        }

        /// Names the touched fields; their values may be secret.
        #[automatically_derived]
        impl ::core::fmt::Debug for #update {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut shown = f.debug_struct(#shown_name);
                #(#shown)*
                shown.finish()
            }
        }
    }
}

/// `impl Update`.
fn implement(item: &Item) -> TokenStream {
    let update = &item.update;
    let touched = item.fields.iter().enumerate().map(|(position, field)| {
        let written = written(field);
        quote! {
            if #written {
                fields.insert(#position);
            }
        }
    });
    let empty = item.fields.iter().map(unwritten);
    let (overwritten, secrets) = (overwrite::overwritten(item), secret::of_update(item));
    quote! {
        #[automatically_derived]
        impl ::stepgraph::Update for #update {
            fn touched(&self, _: &[::stepgraph::Field]) -> ::stepgraph::FieldSet {
                let mut fields = ::stepgraph::FieldSet::new();
                #(#touched)*
                fields
            }

            fn is_empty(&self) -> bool {
                true #(&& #empty)*
            }

            #overwritten

            #secrets
        }
    }
}

fn declare(field: &StateField) -> TokenStream {
    let (name, docs, update) = (&field.name, &field.docs, field.update_type());
    let docs = if docs.is_empty() {
        let about = format!("Update of `{}`.", field.label);
        quote!(#[doc = #about])
    } else {
        quote!(#(#docs)*)
    };
    let present = present(field);
    // All in the place of the reducer, so that one that does not fit is told of there.
    quote_spanned! {field.reducer_span()=>
        #docs
        #[serde(
            deserialize_with = #present,
            skip_serializing_if = "::core::option::Option::is_none"
        )]
        pub #name: ::core::option::Option<#update>
    }
}

/// What reads the field's value: one that does not tell a secret that does not fit.
pub(super) const fn present(field: &StateField) -> &'static str {
    if field.secret {
        "::stepgraph::derive_support::present_secret"
    } else {
        "::stepgraph::derive_support::present"
    }
}

fn setter(field: &StateField) -> TokenStream {
    let (name, update) = (&field.name, field.update_type());
    let about = format!("Updates `{}`.", field.label);
    quote! {
        #[doc = #about]
        #[must_use]
        pub fn #name(mut self, value: impl ::core::convert::Into<#update>) -> Self {
            self.#name = ::core::option::Option::Some(::core::convert::Into::into(value));
            self
        }
    }
}

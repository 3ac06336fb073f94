//! An update of few fields: a place for each.

use proc_macro2::TokenStream;
use quote::quote;

use super::{Form, Way, shown};
use crate::state::parse::Item;

pub(super) fn form(item: &Item, ways: &[Way<'_>]) -> Form {
    let (fields, name) = (&item.update_fields, item.update.to_string());
    let shown = shown(ways, &name);
    let setters = ways.iter().map(|way| &way.setter);
    Form {
        holds: quote!(fields: #fields),
        into_fields: quote!(self.fields),
        set: |_, way| {
            let setter = &way.setter;
            quote!(self.fields.#setter = ::core::option::Option::Some(value))
        },
        methods: {
            let touched = touched(ways.iter());
            let empty = setters.map(|setter| quote!(self.fields.#setter.is_none()));
            let overwritten = overwritten(ways);
            quote! {
                fn touched(&self, _: &[::stepgraph::Field]) -> ::stepgraph::FieldSet { #touched }

                fn is_empty(&self) -> bool {
                    true #(&& #empty)*
                }

                #overwritten
            }
        },
        serialize: quote!(::stepgraph::derive_support::serde::Serialize::serialize(
            &self.fields,
            serializer
        )),
        show: quote!(self.fields.show(f)),
        beside: quote! {
            impl #fields {
                /// As the update is shown.
                fn show(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result { #shown }
            }
        },
    }
}

pub(super) fn take_in(ways: &[Way<'_>], merged: &[TokenStream]) -> TokenStream {
    let all = || ways.iter().zip(merged);
    let plain = all().filter(|(way, _)| !way.overwrites).map(|(way, merge)| {
        let setter = &way.setter;
        let outright = all().find(|(other, _)| other.overwrites && other.position == way.position);
        let outright = outright.map(|(outright, set)| {
            let setter = &outright.setter;
            quote! {
                if let ::core::option::Option::Some(value) = update.fields.#setter.take() {
                    #set
                } else
            }
        });
        quote! {
            #outright
            if let ::core::option::Option::Some(value) = update.fields.#setter.take() {
                #merge
            }
        }
    });
    quote!(#(#plain)*)
}

/// The fields that are written by some of these ways.
fn touched<'a>(ways: impl Iterator<Item = &'a Way<'a>>) -> TokenStream {
    let (setters, positions): (Vec<_>, Vec<_>) = ways.map(|way| (&way.setter, way.position)).unzip();
    if positions.is_empty() {
        return quote!(::stepgraph::FieldSet::new());
    }
    quote! {
        let mut fields = ::stepgraph::FieldSet::new();
        #(
            if self.fields.#setters.is_some() {
                fields.insert(#positions);
            }
        )*
        fields
    }
}

/// `overwritten`, if any field can be overwritten, and `forget`.
fn overwritten(ways: &[Way<'_>]) -> TokenStream {
    let outright = touched(ways.iter().filter(|way| way.overwrites));
    let arms = ways.iter().filter(|way| !way.overwrites).map(|way| {
        let (position, all) = (way.position, ways.iter().filter(|other| other.position == way.position));
        let setters = all.map(|way| &way.setter);
        quote!(#position => { #(self.fields.#setters = ::core::option::Option::None;)* })
    });
    quote! {
        fn overwritten(&self, _: &[::stepgraph::Field]) -> ::stepgraph::FieldSet { #outright }

        fn forget(&mut self, _: &[::stepgraph::Field], field: usize) {
            match field {
                #(#arms)*
                _ => {}
            }
        }
    }
}

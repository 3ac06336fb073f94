//! `#[derive(View)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{DeriveInput, Error, Field, Ident, Result, Type, ext::IdentExt, spanned::Spanned};

use crate::attribute::{Errors, named_fields, once, unknown};

pub(crate) fn expand(item: &DeriveInput) -> Result<TokenStream> {
    let fields = named_fields(item, "a view")?;
    let mut errors = Errors::default();
    let of = errors.keep(state(item));
    let of_type = of.as_ref();
    let (fields, checks): (Vec<_>, Vec<_>) = fields
        .iter()
        .filter_map(|field| errors.keep(copy(field, of_type)))
        .unzip();
    errors.finish()?;
    let name = &item.ident;
    let (generics, arguments, bounds) = item.generics.split_for_impl();
    Ok(quote! {
        #(#checks)*

        #[automatically_derived]
        impl #generics ::stepgraph::FromState<#of> for #name #arguments #bounds {
            fn from_state(state: &::std::sync::Arc<#of>) -> Self {
                let state: &#of = state;
                Self { #(#fields),* }
            }
        }
    })
}

/// The state that is viewed.
fn state(item: &DeriveInput) -> Result<Type> {
    let mut of = None;
    for attribute in item.attrs.iter().filter(|a| a.path().is_ident("view")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("of") {
                once(&mut of, &meta, meta.value()?.parse()?)
            } else {
                Err(unknown(&meta, "`of = State`"))
            }
        })?;
    }
    of.ok_or_else(|| Error::new_spanned(&item.ident, "which state is viewed? add `#[view(of = State)]`"))
}

/// One field, cloned out of the state.
fn copy(field: &Field, of: Option<&Type>) -> Result<(TokenStream, TokenStream)> {
    let (mut from, mut secret): (Option<Ident>, Option<()>) = (None, None);
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("view")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("from") {
                once(&mut from, &meta, meta.value()?.parse()?)
            } else if meta.path.is_ident("secret") {
                once(&mut secret, &meta, ())
            } else {
                Err(unknown(&meta, "`from = field` or `secret`"))
            }
        })?;
    }
    let (name, of_type) = (&field.ident, &field.ty);
    let from = from.as_ref().or(name.as_ref());
    let read = quote_spanned!(from.span()=> &state.#from);
    let wanted = quote_spanned!(of_type.span()=> &#of_type);
    let check = from.map(|from| check(from, of, secret.is_some()));
    let copy = quote! {
        #name: {
            let value: #wanted = #read;
            ::core::clone::Clone::clone(value)
        }
    };
    Ok((copy, check.unwrap_or_default()))
}

/// A view says so where it reads a secret field, and only there.
fn check(from: &Ident, of: Option<&Type>, says_secret: bool) -> TokenStream {
    let label = from.unraw().to_string();
    let message = if says_secret {
        format!("`{label}` is not secret: take `#[view(secret)]` away, or mark the state's field by `#[state(secret)]`")
    } else {
        format!("`{label}` is secret: a view that reads it is for nodes alone, and says so by `#[view(secret)]`")
    };
    quote_spanned! {from.span()=>
        const _: () = ::core::assert!(
            ::stepgraph::derive_support::is_secret::<#of>(#label) == #says_secret,
            #message
        );
    }
}

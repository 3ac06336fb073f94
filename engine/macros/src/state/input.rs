//! `{Name}Input`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use super::parse::{Input, Item, StateField};

pub(super) fn expand(item: &Item) -> TokenStream {
    let (visibility, name, input, update) = (&item.visibility, &item.name, &item.input, &item.update);
    let about = format!("What a run of [`{name}`] starts with.");
    let derives = &item.input_derives;
    let inputs: Vec<(&StateField, &Input)> = item
        .fields
        .iter()
        .filter_map(|field| Some((field, field.input.as_ref()?)))
        .collect();
    let fields = inputs.iter().map(|(field, kind)| declare(item, field, kind));
    let names: Vec<_> = inputs.iter().map(|(field, _)| &field.name).collect();
    let construct = construct(item, &inputs);
    let debug = debug(item);
    quote! {
        #[doc = #about]
        #[derive(
            ::core::clone::Clone,
            ::stepgraph::derive_support::serde::Serialize,
            ::stepgraph::derive_support::serde::Deserialize,
            #(#derives),*
        )]
        #[serde(crate = "::stepgraph::derive_support::serde", deny_unknown_fields)]
        #visibility struct #input { #(#fields),* }

        #construct

        #[automatically_derived]
        impl ::core::convert::From<#input> for #update {
            fn from(input: #input) -> Self {
                <Self as ::core::default::Default>::default()#(.#names(input.#names))*
            }
        }

        #debug
    }
}

fn declare(item: &Item, field: &StateField, kind: &Input) -> TokenStream {
    let (name, docs, ty) = (&field.name, &field.docs, field.update_type());
    let docs = if docs.is_empty() {
        let about = format!("Sets `{}`.", field.label);
        quote!(#[doc = #about])
    } else {
        quote!(#(#docs)*)
    };
    let default = match kind {
        Input::Required => None,
        Input::Default(_) => {
            let path = format!("{}::{}", item.input, default_name(field));
            Some(quote!(#[serde(default = #path)]))
        }
    };
    // An error of its type's would tell what does not fit.
    let read = field.secret.then(|| {
        let absent = (field.is_option() && default.is_none()).then(|| quote!(default,));
        quote!(#[serde(#absent deserialize_with = "::stepgraph::derive_support::secret")])
    });
    quote!(#docs #default #read pub #name: #ty)
}

/// `new` with the required fields, the defaults of the others, and `Default` when none is required.
fn construct(item: &Item, inputs: &[(&StateField, &Input)]) -> TokenStream {
    let input = &item.input;
    let (mut parameters, mut values, mut defaults) = (Vec::new(), Vec::new(), Vec::new());
    for (field, kind) in inputs {
        let (name, ty) = (&field.name, field.update_type());
        match kind {
            Input::Required => {
                parameters.push(quote!(#name: impl ::core::convert::Into<#ty>));
                values.push(quote!(#name: ::core::convert::Into::into(#name)));
            }
            Input::Default(value) => {
                let default = default_name(field);
                values.push(quote!(#name: Self::#default()));
                defaults.push(quote!(fn #default() -> #ty { #value }));
            }
        }
    }
    let default = parameters.is_empty().then(|| {
        quote! {
            #[automatically_derived]
            impl ::core::default::Default for #input {
                fn default() -> Self {
                    Self::new()
                }
            }
        }
    });
    quote! {
        impl #input {
            /// The input with these values, and the default of every other.
            #[must_use]
            #[allow(clippy::too_many_arguments, reason = "one for each required field")]
            pub fn new(#(#parameters),*) -> Self {
                Self { #(#values),* }
            }

            #(#defaults)*
        }

        #default
    }
}

pub(super) fn default_name(field: &StateField) -> syn::Ident {
    format_ident!("default_{}", field.label)
}

/// A `Debug` that tells no values, unless one was asked for.
fn debug(item: &Item) -> Option<TokenStream> {
    let is_debug = |path: &syn::Path| path.segments.last().is_some_and(|last| last.ident == "Debug");
    if item.input_derives.iter().any(is_debug) {
        return None;
    }
    let (input, name) = (&item.input, item.input.to_string());
    Some(quote! {
        /// Tells no values: they may be secret.
        #[automatically_derived]
        impl ::core::fmt::Debug for #input {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#name).finish_non_exhaustive()
            }
        }
    })
}

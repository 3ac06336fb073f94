//! `{Name}Update`: what was given to its setters, and the same with a place for every field.
//!
//! An update of few fields has a place for each of them. One of many holds only what it writes: it is moved with its node's
//! future, merged and dropped at a price that does not grow with the fields that it leaves alone.

mod narrow;
mod wide;

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Ident, spanned::Spanned};

use super::{
    parse::{Item, StateField},
    secret,
};

/// What is written to a field.
fn variant(position: usize) -> Ident {
    format_ident!("F{position}")
}

/// What a field is overwritten with.
fn overwriting(position: usize) -> Ident {
    format_ident!("O{position}")
}

/// One way in which an update writes a field.
struct Way<'a> {
    field: &'a StateField,
    position: usize,
    /// Its place among all ways.
    place: usize,
    /// The name of its setter.
    setter: Ident,
    label: String,
    variant: Ident,
    /// What it is given.
    ty: TokenStream,
    overwrites: bool,
}

/// The most ways of which an update has a place for each.
const PLACES_MAX: usize = 8;

/// What is written for an update in one form or the other.
struct Form {
    /// Its only field.
    holds: TokenStream,
    /// Takes everything out, as the struct with a place for every field.
    into_fields: TokenStream,
    /// Writes `value` by the way at a position.
    set: fn(&Item, &Way<'_>) -> TokenStream,
    /// The methods of `Update`.
    methods: TokenStream,
    serialize: TokenStream,
    show: TokenStream,
    /// What else is declared.
    beside: TokenStream,
}

/// How an update is merged where it lies; `merge` is what becomes of a `value` that is written by a way.
pub(super) fn take_in(item: &Item, merge: &dyn Fn(usize, &StateField, bool) -> TokenStream) -> TokenStream {
    let ways = Way::all(item);
    let merged: Vec<TokenStream> = ways
        .iter()
        .map(|way| merge(way.position, way.field, way.overwrites))
        .collect();
    if ways.len() > PLACES_MAX {
        wide::take_in(item, &ways, &merged)
    } else {
        narrow::take_in(&ways, &merged)
    }
}

impl Way<'_> {
    /// The one among `ways` that passes its field's reducer over, if this does not.
    fn outright<'a>(&self, ways: &'a [Way<'a>]) -> Option<&'a Way<'a>> {
        let mut others = ways.iter().filter(|other| other.overwrites && !self.overwrites);
        others.find(|other| other.position == self.position)
    }

    /// The ways of all fields, then those that pass their reducers over.
    fn all(item: &Item) -> Vec<Way<'_>> {
        let fields = || item.fields.iter().enumerate();
        let plain = fields().map(|(position, field)| Way {
            field,
            position,
            place: position,
            setter: field.name.clone(),
            label: field.label.clone(),
            variant: variant(position),
            ty: field.update_type(),
            overwrites: false,
        });
        let outright = fields().filter_map(|(position, field)| Some((position, field, field.overwrite()?)));
        let outright = outright.enumerate().map(|(at, (position, field, setter))| {
            let ty = &field.ty;
            Way {
                field,
                position,
                place: item.fields.len() + at,
                label: setter.to_string(),
                setter,
                variant: overwriting(position),
                ty: quote_spanned!(ty.span()=> #ty),
                overwrites: true,
            }
        });
        plain.chain(outright).collect()
    }
}

pub(super) fn expand(item: &Item) -> TokenStream {
    let ways = Way::all(item);
    let form = if ways.len() > PLACES_MAX {
        wide::form(item, &ways)
    } else {
        narrow::form(item, &ways)
    };
    let mut code = update(item, &ways, &form);
    code.extend(implement(item, &form));
    code.extend(fields(item, &ways));
    code.extend(form.beside);
    code
}

/// The update itself.
fn update(item: &Item, ways: &[Way<'_>], form: &Form) -> TokenStream {
    let (visibility, name, update, fields) = (&item.visibility, &item.name, &item.update, &item.update_fields);
    let about = format!("Some of the fields of [`{name}`], to be merged into it.");
    let setters = ways.iter().map(|way| setter(item, way, form));
    let (holds, into_fields) = (&form.holds, &form.into_fields);
    quote! {
        #[doc = #about]
        #[derive(::core::clone::Clone, ::core::default::Default)]
        #visibility struct #update { #holds }

        impl #update {
            #(#setters)*

            /// The same with a place for every field.
            #[must_use]
            pub fn into_fields(self) -> #fields {
                #into_fields
            }
        }
    }
}

fn setter(item: &Item, way: &Way<'_>, form: &Form) -> TokenStream {
    let (name, ty, label) = (&way.setter, &way.ty, &way.field.label);
    let set = (form.set)(item, way);
    let about = if way.overwrites {
        format!(
            "Makes this the value of `{label}`, past its reducer. What else is written to it in the step is dropped; two such \
             writes in one step are a conflict."
        )
    } else {
        format!("Updates `{label}`.")
    };
    quote! {
        #[doc = #about]
        #[must_use]
        pub fn #name(mut self, value: impl ::core::convert::Into<#ty>) -> Self {
            let value = ::core::convert::Into::into(value);
            #set;
            self
        }
    }
}

/// `impl Update`, and what an update is shown and stored as.
fn implement(item: &Item, form: &Form) -> TokenStream {
    let (update, fields) = (&item.update, &item.update_fields);
    let (methods, serialize, show) = (&form.methods, &form.serialize, &form.show);
    let secrets = secret::of_update(item);
    quote! {
        #[automatically_derived]
        impl ::stepgraph::Update for #update {
            #methods
            #secrets
        }

        #[automatically_derived]
        impl ::stepgraph::derive_support::serde::Serialize for #update {
            fn serialize<__S: ::stepgraph::derive_support::serde::Serializer>(
                &self,
                serializer: __S,
            ) -> ::core::result::Result<__S::Ok, __S::Error> {
                #serialize
            }
        }

        #[automatically_derived]
        impl<'de> ::stepgraph::derive_support::serde::Deserialize<'de> for #update {
            fn deserialize<__D: ::stepgraph::derive_support::serde::Deserializer<'de>>(
                deserializer: __D,
            ) -> ::core::result::Result<Self, __D::Error> {
                let fields = <#fields as ::stepgraph::derive_support::serde::Deserialize>::deserialize(deserializer)?;
                ::core::result::Result::Ok(::core::convert::From::from(fields))
            }
        }

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
                #show
            }
        }
    }
}

/// The struct with a place for every field.
fn fields(item: &Item, ways: &[Way<'_>]) -> TokenStream {
    let (visibility, update, fields) = (&item.visibility, &item.update, &item.update_fields);
    let about = format!("What [`{update}`] writes, with a place for every field.");
    let (stored_name, shown_name) = (update.to_string(), fields.to_string());
    let shown = shown(ways, &shown_name);
    let serialize = (ways.len() <= PLACES_MAX).then(|| quote!(::stepgraph::derive_support::serde::Serialize,));
    let places = ways.iter().map(|way| declare(way, ways.len() <= PLACES_MAX));
    let sets = ways.iter().map(|way| {
        let setter = &way.setter;
        quote! {
            let update = match fields.#setter {
                ::core::option::Option::Some(value) => update.#setter(value),
                ::core::option::Option::None => update,
            };
        }
    });
    quote! {
        #[doc = #about]
        #[derive(
            ::core::clone::Clone,
            ::core::default::Default,
            #serialize
            ::stepgraph::derive_support::serde::Deserialize,
        )]
        #[serde(
            crate = "::stepgraph::derive_support::serde",
            rename = #stored_name,
            default,
            deny_unknown_fields
        )]
        #[allow(clippy::option_option, reason = "`null` and absent are two things")]
        #visibility struct #fields { #(#places),* }

        #[automatically_derived]
        impl ::core::convert::From<#fields> for #update {
            fn from(fields: #fields) -> Self {
                let update = <Self as ::core::default::Default>::default();
                #(#sets)*
                update
            }
        }

        /// Names the fields that are there; their values may be secret.
        #[automatically_derived]
        impl ::core::fmt::Debug for #fields {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                #shown
            }
        }
    }
}

/// Names the fields of `self` that are there.
fn shown(ways: &[Way<'_>], name: &str) -> TokenStream {
    let fields = ways.iter().map(|way| {
        let (setter, label) = (&way.setter, &way.label);
        quote! {
            if self.#setter.is_some() {
                shown.field(#label, &::core::format_args!(".."));
            }
        }
    });
    quote! {
        let mut shown = f.debug_struct(#name);
        #(#fields)*
        shown.finish()
    }
}

fn declare(way: &Way<'_>, stored: bool) -> TokenStream {
    let skip = stored.then(|| quote!(, skip_serializing_if = "::core::option::Option::is_none"));
    let (name, docs, ty, label) = (&way.setter, &way.field.docs, &way.ty, &way.field.label);
    let (span, docs) = if way.overwrites {
        let about = format!("The new value of `{label}`, whatever else is written to it in the step.");
        (way.field.ty.span(), quote!(#[doc = #about]))
    } else if docs.is_empty() {
        let about = format!("Update of `{label}`.");
        (way.field.reducer_span(), quote!(#[doc = #about]))
    } else {
        (way.field.reducer_span(), quote!(#(#docs)*))
    };
    // One that does not tell a secret that does not fit.
    let present = if way.field.secret {
        "::stepgraph::derive_support::present_secret"
    } else {
        "::stepgraph::derive_support::present"
    };
    // All in the place of the reducer, so that one that does not fit is told of there.
    quote_spanned! {span=>
        #docs
        #[serde(deserialize_with = #present #skip)]
        pub #name: ::core::option::Option<#ty>
    }
}

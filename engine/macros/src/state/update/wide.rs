//! An update of many fields: a list of what it writes.

use proc_macro2::TokenStream;
use quote::quote;

use super::{Form, Way};
use crate::state::parse::Item;

pub(super) fn form(item: &Item, ways: &[Way<'_>]) -> Form {
    let (write, fields, name) = (&item.write, &item.update_fields, item.update.to_string());
    let takes = ways.iter().map(|way| {
        let (setter, variant) = (&way.setter, &way.variant);
        quote!(#write::#variant(value) => fields.#setter = ::core::option::Option::Some(value),)
    });
    Form {
        holds: quote!(writes: ::stepgraph::derive_support::Writes<#write>),
        into_fields: quote! {
            let (mut writes, mut fields) = (self.writes, <#fields as ::core::default::Default>::default());
            while let ::core::option::Option::Some(write) = writes.pop() {
                match write { #(#takes)* }
            }
            fields
        },
        set: |item, way| {
            let (write, variant) = (&item.write, &way.variant);
            quote!(self.writes.set(#write::#variant(value)))
        },
        methods: quote! {
            fn touched(&self, _: &[::stepgraph::Field]) -> ::stepgraph::FieldSet {
                self.writes.touched()
            }

            fn is_empty(&self) -> bool {
                self.writes.is_empty()
            }

            fn overwritten(&self, _: &[::stepgraph::Field]) -> ::stepgraph::FieldSet {
                self.writes.overwritten()
            }

            fn forget(&mut self, _: &[::stepgraph::Field], field: usize) {
                self.writes.forget(field);
            }
        },
        serialize: quote!(self.writes.serialize(#name, serializer)),
        show: quote!(self.writes.show(#name, f)),
        beside: self::write(item, ways),
    }
}

pub(super) fn take_in(item: &Item, ways: &[Way<'_>], merged: &[TokenStream]) -> TokenStream {
    let write = &item.write;
    let arms = ways.iter().zip(merged).map(|(way, merge)| {
        let (variant, position) = (&way.variant, way.position);
        // What overwrites the field stands in the same update, perhaps behind it.
        let skip = way
            .outright(ways)
            .map(|_| quote!(if overwritten.contains(#position) { continue; }));
        quote!(#write::#variant(value) => { #skip #merge })
    });
    let overwritten = ways
        .iter()
        .any(|way| way.overwrites)
        .then(|| quote!(let overwritten = update.writes.overwritten();));
    quote! {
        #overwritten
        while let ::core::option::Option::Some(write) = update.writes.pop() {
            match write { #(#arms)* }
        }
    }
}

/// What an update writes to one field.
fn write(item: &Item, ways: &[Way<'_>]) -> TokenStream {
    let (write, count) = (&item.write, item.fields.len());
    let variants = ways.iter().map(|way| {
        let (variant, ty) = (&way.variant, &way.ty);
        quote!(#variant(#ty))
    });
    let names = ways.iter().map(|way| &way.label);
    let arms = |of: &dyn Fn(&Way<'_>) -> usize| -> Vec<TokenStream> {
        let arm = |way: &Way<'_>| {
            let (variant, number) = (&way.variant, of(way));
            quote!(Self::#variant(_) => #number)
        };
        ways.iter().map(arm).collect()
    };
    let (places, fields) = (arms(&|way| way.place), arms(&|way| way.position));
    let values = ways.iter().map(|way| {
        let variant = &way.variant;
        quote! {
            Self::#variant(ref value) => {
                ::stepgraph::derive_support::serde::ser::SerializeStruct::serialize_field(out, name, value)
            }
        }
    });
    quote! {
        #[derive(::core::clone::Clone)]
        #[allow(clippy::large_enum_variant, clippy::option_option, reason = "it is as large as the fields are")]
        enum #write { #(#variants),* }

        #[automatically_derived]
        impl ::stepgraph::derive_support::FieldWrite for #write {
            const NAMES: &'static [&'static str] = &[#(#names),*];
            const FIELDS: usize = #count;

            fn place(&self) -> usize {
                match *self { #(#places),* }
            }

            fn field(&self) -> usize {
                match *self { #(#fields),* }
            }

            fn write<__S: ::stepgraph::derive_support::serde::ser::SerializeStruct>(
                &self,
                name: &'static str,
                out: &mut __S,
            ) -> ::core::result::Result<(), __S::Error> {
                match *self { #(#values),* }
            }
        }
    }
}

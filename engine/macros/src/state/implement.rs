//! `impl State`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};

use super::{
    input, migration,
    parse::{Input, Item, StateField},
    secret, update,
};

pub(super) fn expand(item: &Item) -> TokenStream {
    let (name, update, input) = (&item.name, &item.update, &item.input);
    let event = item.event.as_ref().map_or_else(|| quote!(()), |event| quote!(#event));
    let version = item
        .version
        .as_ref()
        .map(|version| quote!(const VERSION: u32 = #version;));
    let fields = item.fields.iter().map(describe);
    let (start, restart, apply, decode) = (start(item), restart(item), apply(item), decode(item));
    let write_fields = write_fields(item);
    let (migration, secrets) = (migration::expand(item), secret::of_state(item));
    let checked = migration::check(item);
    quote! {
        #[automatically_derived]
        impl ::stepgraph::State for #name {
            type Input = #input;
            type Update = #update;
            type Event = #event;
            type Shape = ();
            #version

            #secrets

            fn fields((): &()) -> &[::stepgraph::Field] {
                const FIELDS: &[::stepgraph::Field] = &[#(#fields),*];
                FIELDS
            }

            #start
            #restart
            #apply

            fn encode(&self) -> ::core::result::Result<::std::vec::Vec<u8>, ::stepgraph::StateError> {
                ::stepgraph::derive_support::encode(self)
            }

            fn encode_changes(
                &self,
                changes: &::stepgraph::Changes,
            ) -> ::core::result::Result<::std::vec::Vec<u8>, ::stepgraph::StateError> {
                ::stepgraph::derive_support::encode_changes(self, changes)
            }

            fn encode_to(
                &self,
                out: &mut ::std::vec::Vec<u8>,
            ) -> ::core::result::Result<(), ::stepgraph::StateError> {
                ::stepgraph::derive_support::encode_to(self, out)
            }

            fn encode_changes_to(
                &self,
                changes: &::stepgraph::Changes,
                out: &mut ::std::vec::Vec<u8>,
            ) -> ::core::result::Result<(), ::stepgraph::StateError> {
                ::stepgraph::derive_support::encode_changes_to(self, changes, out)
            }

            #decode

            #migration
        }

        #checked

        #write_fields
    }
}

fn describe(field: &StateField) -> TokenStream {
    let (label, reducer) = (&field.label, field.reducer());
    let secret = field.secret.then(|| quote!(.secret()));
    quote!(::stepgraph::Field::fixed(#label, #reducer::ID, #reducer::CONCURRENT)#secret)
}

fn start(item: &Item) -> TokenStream {
    let values = item.fields.iter().map(|field| {
        let name = &field.name;
        let value = match field.input {
            Some(_) => first(field),
            None => field.default_value(),
        };
        quote!(#name: #value)
    });
    quote! {
        fn start((): &(), input: Self::Input) -> Self {
            Self { #(#values),* }
        }
    }
}

fn first(field: &StateField) -> TokenStream {
    let (name, reducer) = (&field.name, field.reducer());
    quote_spanned!(field.reducer_span()=> #reducer::first(input.#name))
}

fn restart(item: &Item) -> TokenStream {
    let resets = item.fields.iter().enumerate().filter_map(|(position, field)| {
        let name = &field.name;
        let value = match (field.per_run, &field.input) {
            (false, _) => return None,
            (true, Some(_)) => first(field),
            (true, None) => field.default_value(),
        };
        Some(quote! {
            changes.set(#position);
            self.#name = #value;
        })
    });
    let merges = item.fields.iter().enumerate().filter_map(|(position, field)| {
        let name = &field.name;
        (field.input.is_some() && !field.per_run).then(|| merge(position, field, &quote!(input.#name)))
    });
    quote! {
        fn restart(&mut self, input: Self::Input, changes: &mut ::stepgraph::Changes) {
            #(#resets)*
            #(#merges)*
        }
    }
}

fn apply(item: &Item) -> TokenStream {
    let merges = update::take_in(item, &|position, field, overwrites| {
        let name = &field.name;
        if overwrites {
            quote! {
                changes.set(#position);
                self.#name = value;
            }
        } else {
            merge(position, field, &quote!(value))
        }
    });
    quote! {
        fn apply(&mut self, mut update: Self::Update, changes: &mut ::stepgraph::Changes) {
            self.take_in(&mut update, changes);
        }

        #[inline]
        fn take_in(&mut self, update: &mut Self::Update, changes: &mut ::stepgraph::Changes) {
            #merges
        }
    }
}

fn merge(position: usize, field: &StateField, value: &TokenStream) -> TokenStream {
    let (name, reducer) = (&field.name, field.reducer());
    // Only a reducer that folds has anything to note.
    let note = field.overwrite().map(|_| {
        quote! {
            if let ::core::option::Option::Some(mark) = changes.mark(#position) {
                #reducer::note(mark, &#value);
            }
        }
    });
    quote! {
        changes.touch(#position, || #reducer::mark(&self.#name));
        #note
        #reducer::reduce(&mut self.#name, #value);
    }
}

fn write_fields(item: &Item) -> TokenStream {
    let name = &item.name;
    let stored = item.fields.iter().enumerate().filter(|(_, field)| !field.untracked);
    let positions = stored.clone().map(|(position, _)| position);
    let arms = stored.map(|(position, field)| {
        let (name, label, reducer) = (&field.name, &field.label, field.reducer());
        let write = if field.secret {
            quote!(secret_field)
        } else {
            quote!(field)
        };
        quote!(#position => out.#write(#label, &#reducer::effect(&self.#name, mark)))
    });
    quote! {
        #[automatically_derived]
        impl ::stepgraph::derive_support::WriteFields for #name {
            const STORED: &'static [usize] = &[#(#positions),*];

            fn write_field(
                &self,
                field: usize,
                mark: &::stepgraph::Mark,
                out: &mut ::stepgraph::derive_support::FieldWriter<'_>,
            ) -> ::core::result::Result<(), ::stepgraph::StateError> {
                match field {
                    #(#arms,)*
                    _ => ::core::result::Result::Ok(()),
                }
            }
        }
    }
}

fn decode(item: &Item) -> TokenStream {
    let stored: Vec<_> = item.fields.iter().filter(|field| !field.untracked).collect();
    let slots = stored.iter().map(|field| {
        let (name, ty) = (&field.name, &field.ty);
        quote!(#name: ::core::option::Option<#ty>)
    });
    let arms = stored.iter().map(|field| {
        let (name, label, reducer) = (&field.name, &field.label, field.reducer());
        let secret = field
            .secret
            .then(|| quote!(.map_err(::stepgraph::derive_support::unfit_secret)));
        quote!(#label => #reducer::restore(&mut self.#name, effect)#secret)
    });
    let values = item.fields.iter().map(|field| {
        let (name, label, default) = (&field.name, &field.label, field.default_value());
        // What a thread of before the field was added has not stored: only what needs no thread to be known.
        match &field.input {
            _ if field.untracked => quote!(#name: #default),
            Some(Input::Default(_)) => {
                let (input, reducer, default) = (&item.input, field.reducer(), input::default_name(field));
                quote!(#name: slots.#name.unwrap_or_else(|| #reducer::first(#input::#default())))
            }
            None if field.per_run => quote!(#name: slots.#name.unwrap_or_else(|| #default)),
            Some(Input::Required) | None => {
                quote!(#name: ::stepgraph::derive_support::stored(#label, slots.#name)?)
            }
        }
    });
    quote! {
        fn decode((): &(), parts: &[&[u8]]) -> ::core::result::Result<Self, ::stepgraph::StateError> {
            #[derive(::core::default::Default)]
            struct __Slots { #(#slots),* }

            impl ::stepgraph::derive_support::ReadFields for __Slots {
                fn read_field<'de, __D: ::stepgraph::derive_support::serde::Deserializer<'de>>(
                    &mut self,
                    name: &str,
                    effect: __D,
                ) -> ::core::result::Result<(), __D::Error> {
                    match name {
                        #(#arms,)*
                        _ => ::core::result::Result::Err(::stepgraph::derive_support::unknown_field()),
                    }
                }
            }

            let mut slots = <__Slots as ::core::default::Default>::default();
            ::stepgraph::derive_support::decode(&mut slots, parts)?;
            ::core::result::Result::Ok(Self { #(#values),* })
        }
    }
}

//! Reading what was stored in an older version of the state.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use super::parse::Item;

/// The methods of `State` that read older forms, if one is said.
pub(super) fn expand(item: &Item) -> Option<TokenStream> {
    let from = item.from.as_ref()?;
    let older = quote_spanned!(from.span()=> <#from as ::stepgraph::State>);
    let state = quote_spanned!(from.span()=> <Self as ::core::convert::From<#from>>::from);
    let update = quote_spanned! {from.span()=>
        <Self::Update as ::core::convert::From<#older::Update>>::from
    };
    Some(quote! {
        fn decode_version(
            (): &(),
            version: u32,
            parts: &[&[u8]],
        ) -> ::core::result::Result<Self, ::stepgraph::StateError> {
            if version < Self::VERSION {
                return #older::decode_version(&(), version, parts).map(#state);
            }
            ::stepgraph::derive_support::same_version(version, Self::VERSION)?;
            <Self as ::stepgraph::State>::decode(&(), parts)
        }

        fn decode_kept(
            (): &(),
            version: u32,
            body: &[u8],
        ) -> ::core::result::Result<
            ::stepgraph::derive_support::StoredOutput<Self::Update>,
            ::stepgraph::StateError,
        > {
            if version < Self::VERSION {
                return #older::decode_kept(&(), version, body).map(|kept| kept.map(#update));
            }
            ::stepgraph::derive_support::same_version(version, Self::VERSION)?;
            ::stepgraph::derive_support::decode_kept(body)
        }

        fn forms((): &()) -> ::std::vec::Vec<(u32, ::std::vec::Vec<::stepgraph::Field>)> {
            let mut forms = #older::forms(&());
            forms.push((Self::VERSION, <Self as ::stepgraph::State>::fields(&()).to_vec()));
            forms
        }
    })
}

/// The older version must be older.
pub(super) fn check(item: &Item) -> Option<TokenStream> {
    let (from, name) = (item.from.as_ref()?, &item.name);
    Some(quote_spanned! {from.span()=>
        const _: () = ::core::assert!(
            <#from as ::stepgraph::State>::VERSION < <#name as ::stepgraph::State>::VERSION,
            "a state comes from one of an older version: give this one a higher `version`"
        );
    })
}

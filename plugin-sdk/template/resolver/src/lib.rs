//! A shopping cart that loses nothing: one JSON document per cart, `{"milk":2,"tea":1}`, item to quantity.
//!
//! Two people change the cart at the same time; the store keeps both versions as siblings and asks this plugin. The cart
//! it answers with has every item of every version, in the highest quantity anyone asked for.

use std::collections::BTreeMap;

use merganser_plugin_sdk::{KeyInfo, Rejection, Resolver, Sibling, Verdict, export_resolver};

/// The plugin.
pub struct Cart;

/// Ordered, so that equal carts are equal bytes.
type Items = BTreeMap<String, u32>;

fn parse(value: &[u8]) -> Result<Items, Rejection> {
    serde_json::from_slice(value).map_err(|e| Rejection::malformed(format!("not a cart: {e}")))
}

impl Resolver for Cart {
    fn resolve(_: &KeyInfo, siblings: &[Sibling]) -> Verdict {
        let values: Vec<&[u8]> = siblings.iter().filter_map(Sibling::value).collect();
        match values[..] {
            // Everybody deleted the cart. Where somebody else changed it meanwhile, the change wins.
            [] => return Verdict::Delete,
            [only] => return Verdict::keep(only),
            _ => {}
        }
        let mut all = Items::new();
        for value in values {
            match parse(value) {
                Ok(items) => {
                    for (item, quantity) in items {
                        let most = all.entry(item).or_default();
                        *most = quantity.max(*most);
                    }
                }
                // `validate` lets no such value in. Should one be there all the same, nothing is thrown away.
                Err(rejection) => return Verdict::Unresolved(rejection.message),
            }
        }
        Verdict::keep_as(serde_json::to_vec(&all).expect("a map of numbers is JSON"), "application/json")
    }

    fn validate(_: &KeyInfo, value: &[u8]) -> Result<(), Rejection> {
        parse(value).map(|_| ())
    }

    /// For `merganser plugin check`: carts to try the laws on.
    fn generate(seed: &[u8]) -> Option<Vec<u8>> {
        let names = ["milk", "tea", "eggs", "bread"];
        let items: Items = names.iter().zip(seed).map(|(name, &n)| (name.to_string(), n.into())).collect();
        serde_json::to_vec(&items).ok()
    }
}

export_resolver!(Cart);

#[cfg(test)]
mod tests {
    use merganser_plugin_sdk::laws;
    use merganser_plugin_sdk::testing::{key, siblings, tombstone};

    use super::*;

    #[test]
    fn every_item_of_every_version_is_in_the_cart() {
        let siblings = siblings(&[r#"{"milk":1,"tea":1}"#, r#"{"milk":2,"eggs":6}"#]);
        let settled = Cart::resolve(&key("cart/7"), &siblings);
        assert_eq!(settled, Verdict::keep_as(br#"{"eggs":6,"milk":2,"tea":1}"#, "application/json"));
    }

    #[test]
    fn a_change_survives_a_concurrent_delete() {
        let mut siblings = siblings(&[r#"{"milk":1}"#]);
        siblings.push(tombstone(9, 9));
        assert_eq!(Cart::resolve(&key("cart/7"), &siblings), Verdict::keep(br#"{"milk":1}"#));
    }

    #[test]
    fn what_is_not_a_cart_is_refused_at_the_door() {
        assert!(Cart::validate(&key("cart/7"), b"[]").is_err());
        assert!(Cart::validate(&key("cart/7"), br#"{"milk":-1}"#).is_err());
        assert_eq!(Cart::validate(&key("cart/7"), br#"{"milk":1}"#), Ok(()));
    }

    #[test]
    fn settling_in_parts_or_at_once_is_the_same() {
        let carts: [&[u8]; 4] = [b"{}", br#"{"milk":1}"#, br#"{"milk":2,"tea":1}"#, br#"{"tea":3}"#];
        assert_eq!(laws::resolver::<Cart>(&carts), Ok(()));
    }
}

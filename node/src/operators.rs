//! What each operator may do: a role a name in the configuration, and one required role a call.

use std::{collections::BTreeMap, fmt};

use holdfast_proto::{
    error::Error,
    identity::{Identity, Role},
};
use serde::Deserialize;

/// How much an operator may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperatorRole {
    /// Nothing: a certificate that no longer counts.
    None,
    /// Look.
    Read,
    /// What brings money in, and the names that things have.
    Invoice,
    /// What takes money out.
    Spend,
    /// Channels, peers, the lead.
    Admin,
}

impl OperatorRole {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Invoice => "invoice",
            Self::Spend => "spend",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for OperatorRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The `[operators]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Table")]
pub struct Operators {
    unlisted: OperatorRole,
    roles: BTreeMap<String, OperatorRole>,
}

/// Without the table, the authority decides: whom it issued an operator's certificate may do everything.
impl Default for Operators {
    fn default() -> Self {
        Self { unlisted: OperatorRole::Admin, roles: BTreeMap::new() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    unlisted: Option<OperatorRole>,
    #[serde(default)]
    roles: BTreeMap<String, OperatorRole>,
}

impl TryFrom<Table> for Operators {
    type Error = String;

    fn try_from(Table { unlisted, roles }: Table) -> Result<Self, String> {
        for name in roles.keys() {
            Identity::new("domain", Role::Operator, name).map_err(|error| format!("operators.roles: {error}"))?;
        }
        // Who writes a table means what is in it.
        let unlisted = unlisted.unwrap_or(OperatorRole::None);
        if unlisted == OperatorRole::None && roles.values().all(|role| *role == OperatorRole::None) {
            return Err("[operators] lets nobody in: name somebody in [operators.roles], or set unlisted".into());
        }
        Ok(Self { unlisted, roles })
    }
}

impl Operators {
    /// What the operator of this name may do.
    pub fn role_of(&self, name: &str) -> OperatorRole {
        self.roles.get(name).copied().unwrap_or(self.unlisted)
    }

    /// Whether `caller` may make this call of `holdfast.node.v1.Node`.
    pub fn authorise(&self, caller: &Identity, method: &str) -> Result<(), Error> {
        let Some((_, needed)) = required(method) else {
            return Err(Error::Internal(format!("{method} has no role that it needs, and so nobody may call it")));
        };
        match caller.role {
            Role::Operator => {
                let (name, has) = (&caller.name, self.role_of(&caller.name));
                if has >= needed {
                    return Ok(());
                }
                let why = format!("{method} needs the role {needed}, and operator {name} has {has}");
                Err(Error::refused("identity", why))
            }
            Role::Replica if REPLICAS.contains(&method) => Ok(()),
            role => Err(Error::refused("identity", format!("{method} is not open to a {role}"))),
        }
    }
}

/// A call's name, as it lives as long as the program, and the role that it needs.
pub fn required(method: &str) -> Option<(&'static str, OperatorRole)> {
    CALLS.iter().find(|(name, _)| *name == method).copied()
}

/// What a replica may ask another.
const REPLICAS: [&str; 2] = ["GetInfo", "GetLeader"];

/// Every call of the service; one that is missing here is open to nobody, and fails a test.
const CALLS: &[(&str, OperatorRole)] = &[
    ("GetInfo", OperatorRole::Read),
    ("GetLeader", OperatorRole::Read),
    ("GetBalance", OperatorRole::Read),
    ("ListPeers", OperatorRole::Read),
    ("ListChannels", OperatorRole::Read),
    ("DescribeGraph", OperatorRole::Read),
    ("FindRoute", OperatorRole::Read),
    ("ExportChannelBackup", OperatorRole::Read),
    ("ListChannelRecoveries", OperatorRole::Read),
    ("GetPayment", OperatorRole::Read),
    ("ListPayments", OperatorRole::Read),
    ("ListForwards", OperatorRole::Read),
    ("ListOffers", OperatorRole::Read),
    ("ListAddresses", OperatorRole::Read),
    ("ListUtxos", OperatorRole::Read),
    ("ListLabels", OperatorRole::Read),
    ("GetDescriptors", OperatorRole::Read),
    ("WatchEvents", OperatorRole::Read),
    ("NewAddress", OperatorRole::Invoice),
    ("CreateInvoice", OperatorRole::Invoice),
    ("SettleInvoice", OperatorRole::Invoice),
    ("CancelInvoice", OperatorRole::Invoice),
    ("CreateOffer", OperatorRole::Invoice),
    ("DisableOffer", OperatorRole::Invoice),
    ("ClaimRefund", OperatorRole::Invoice),
    ("SetLabel", OperatorRole::Invoice),
    ("PayInvoice", OperatorRole::Spend),
    ("SendKeysend", OperatorRole::Spend),
    ("CreateRefund", OperatorRole::Spend),
    // HTLCs of ours that wait on their way.
    ("Probe", OperatorRole::Spend),
    ("SendCoins", OperatorRole::Spend),
    ("BumpTransaction", OperatorRole::Spend),
    ("ConnectPeer", OperatorRole::Admin),
    ("DisconnectPeer", OperatorRole::Admin),
    ("OpenChannel", OperatorRole::Admin),
    ("CloseChannel", OperatorRole::Admin),
    ("SetChannelPolicy", OperatorRole::Admin),
    ("SpliceChannel", OperatorRole::Admin),
    ("RescanWallet", OperatorRole::Admin),
    ("RecoverChannels", OperatorRole::Admin),
    ("Handover", OperatorRole::Admin),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const CONTRACT: &str = include_str!("../../proto/proto/holdfast/node/v1/node.proto");

    fn table(text: &str) -> Result<Operators, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.to_string())
    }

    fn caller(role: Role, name: &str) -> Identity {
        Identity::new("test", role, name).unwrap()
    }

    #[test]
    fn every_call_of_the_service_needs_exactly_one_role() {
        let of_contract: BTreeSet<&str> =
            CONTRACT.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next()).collect();
        assert!(of_contract.len() > 30, "{of_contract:?}");
        let in_table: BTreeSet<&str> = CALLS.iter().map(|(name, _)| *name).collect();
        assert_eq!(in_table, of_contract);
        assert_eq!(in_table.len(), CALLS.len(), "a call stands twice in the table");
        assert!(CALLS.iter().all(|(_, role)| *role > OperatorRole::None), "open to those who may do nothing");
    }

    /// What is on the page for people is what the code does.
    #[test]
    fn the_documented_roles_are_those_of_the_table() {
        let page = include_str!("../../docs/operators.md");
        for (name, role) in CALLS {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{role}` |")));
            let row = row.unwrap_or_else(|| panic!("no row for {role}"));
            assert!(row.contains(&format!("`{name}`")), "docs/operators.md does not have {name} under {role}");
        }
    }

    #[test]
    fn without_a_table_an_operators_certificate_is_enough_for_all_and_with_one_only_who_is_named_gets_in() {
        assert_eq!(Operators::default().role_of("anybody"), OperatorRole::Admin);
        let some = table("[roles]\nshop = \"invoice\"\nlost = \"none\"").unwrap();
        assert_eq!(some.role_of("shop"), OperatorRole::Invoice);
        assert_eq!(some.role_of("lost"), OperatorRole::None);
        assert_eq!(some.role_of("anybody"), OperatorRole::None);
        let open = table("unlisted = \"read\"\n[roles]\nlost = \"none\"").unwrap();
        assert_eq!((open.role_of("anybody"), open.role_of("lost")), (OperatorRole::Read, OperatorRole::None));
    }

    #[test]
    fn a_table_that_makes_no_sense_is_refused() {
        for (text, says) in [
            ("", "lets nobody in"),
            ("[roles]\na = \"none\"", "lets nobody in"),
            ("[roles]\na = \"root\"", "root"),
            ("[roles]\n\"A b\" = \"read\"", "A b"),
            ("unlisted = \"everything\"", "everything"),
            ("surprise = 1", "surprise"),
        ] {
            let error = table(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn each_role_may_do_what_those_before_it_may_and_no_more() {
        let operators =
            table("[roles]\nn = \"none\"\nr = \"read\"\ni = \"invoice\"\ns = \"spend\"\na = \"admin\"").unwrap();
        for (method, names) in
            [("ListPayments", "risa"), ("CreateInvoice", "isa"), ("SendCoins", "sa"), ("CloseChannel", "a")]
        {
            for name in ["n", "r", "i", "s", "a"] {
                let allowed = operators.authorise(&caller(Role::Operator, name), method);
                assert_eq!(allowed.is_ok(), names.contains(name), "{method} by {name}");
            }
        }
        let Err(Error::Refused { rule, why }) = operators.authorise(&caller(Role::Operator, "i"), "SendCoins") else {
            panic!("not refused");
        };
        assert_eq!(rule, "identity");
        assert_eq!(why, "SendCoins needs the role spend, and operator i has invoice");
        assert!(matches!(operators.authorise(&caller(Role::Operator, "a"), "NoSuchCall"), Err(Error::Internal(_))));
        for role in [Role::Replica, Role::Front, Role::Signer] {
            assert_eq!(operators.authorise(&caller(role, "a"), "GetLeader").is_ok(), role == Role::Replica);
            assert!(operators.authorise(&caller(role, "a"), "ListPayments").is_err());
        }
    }
}

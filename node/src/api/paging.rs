//! Lists in pages that keep an answer below gRPC's limit of 4 MB. What comes and goes between two pages makes nothing else
//! be missed or shown twice: a page begins behind a place in the order, not behind a count.

use holdfast_proto::node::v1;

/// Something with a place in its list: text that sorts as the list does.
pub(super) trait Listed {
    fn place(&self) -> String;
}

const AT_ONCE: u32 = 1000;
const MOST_BYTES: usize = 3 << 20;

/// As many as an answer has room for, from the first on; what others wrote (a payee's BOLT 12 invoice) may be long. The
/// first always has room.
pub(super) fn fitting<T: prost::Message>(mut items: Vec<T>) -> Vec<T> {
    let mut bytes = 0;
    let is_beyond = |item: &T| {
        bytes += item.encoded_len();
        bytes > MOST_BYTES
    };
    if let Some(end) = items.iter().position(is_beyond) {
        items.truncate(end.max(1));
    }
    items
}

/// The page after the place `after`, at most `limit` long (0: as long as may be), and the place to go on from; empty at
/// the end.
pub(super) fn page<T: Listed>(items: Vec<T>, limit: u32, after: &str) -> (Vec<T>, String) {
    let limit = if limit == 0 { AT_ONCE } else { limit.min(AT_ONCE) } as usize;
    let placed = items.into_iter().map(|item| (item.place(), item));
    let mut ahead: Vec<_> = placed.filter(|(place, _)| after.is_empty() || place.as_str() > after).collect();
    ahead.sort_by(|(a, _), (b, _)| a.cmp(b));
    let is_last = ahead.len() <= limit;
    ahead.truncate(limit);
    let next = ahead.last().filter(|_| !is_last).map(|(place, _)| place.clone()).unwrap_or_default();
    (ahead.into_iter().map(|(_, item)| item).collect(), next)
}

impl Listed for v1::Peer {
    fn place(&self) -> String {
        self.node_id.clone()
    }
}

impl Listed for v1::Channel {
    fn place(&self) -> String {
        self.channel_id.clone()
    }
}

impl Listed for v1::ChannelRecovery {
    fn place(&self) -> String {
        self.channel_id.clone()
    }
}

/// The newest first, those of change at the end.
impl Listed for v1::WalletAddress {
    fn place(&self) -> String {
        format!("{}-{:010}", u8::from(self.is_change), u32::MAX - self.index)
    }
}

/// The largest first.
impl Listed for v1::Utxo {
    fn place(&self) -> String {
        format!("{:020}-{}", u64::MAX - self.amount_sat, self.outpoint)
    }
}

impl Listed for v1::Label {
    fn place(&self) -> String {
        format!("{}-{}", self.r#type, self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coin(amount_sat: u64, outpoint: &str) -> v1::Utxo {
        v1::Utxo { amount_sat, outpoint: outpoint.into(), ..Default::default() }
    }

    #[test]
    fn pages_follow_each_other_though_the_list_changes_in_between() {
        let mut coins = vec![coin(5, "b:0"), coin(100, "a:0"), coin(5, "a:1"), coin(20, "c:0"), coin(1, "d:0")];
        let (first, next) = page(coins.clone(), 2, "");
        assert_eq!(first, [coin(100, "a:0"), coin(20, "c:0")]);
        // The one at which the page ended is spent, and another came before it.
        coins.retain(|coin| coin.outpoint != "c:0");
        coins.push(coin(50, "e:0"));
        let (second, next) = page(coins.clone(), 2, &next);
        assert_eq!(second, [coin(5, "a:1"), coin(5, "b:0")]);
        let (third, next) = page(coins, 2, &next);
        assert_eq!((third, next.as_str()), (vec![coin(1, "d:0")], ""));
        assert_eq!(page(Vec::<v1::Utxo>::new(), 0, "").1, "");
    }

    #[test]
    fn a_page_that_ends_the_list_says_so_and_no_page_is_too_long() {
        let peers: Vec<_> = (0..2500).map(|n| v1::Peer { node_id: format!("{n:04}"), ..Default::default() }).collect();
        let (first, next) = page(peers.clone(), 0, "");
        assert_eq!((first.len(), next.as_str()), (1000, "0999"));
        assert_eq!(page(peers.clone(), u32::MAX, "").0.len(), 1000);
        let (last, next) = page(peers, 500, "1999");
        assert_eq!((last.len(), next.as_str()), (500, ""));
    }

    #[test]
    fn a_list_ends_where_the_answer_would_be_too_long_but_never_before_its_first() {
        let payment = |bytes| v1::Payment { invoice: "x".repeat(bytes), ..Default::default() };
        let all = fitting(vec![payment(64 << 10); 1000]);
        assert!((40..48).contains(&all.len()), "{}", all.len());
        assert_eq!(fitting(vec![payment(10); 1000]).len(), 1000);
        assert_eq!(fitting(vec![payment(MOST_BYTES * 2); 2]).len(), 1);
        assert!(fitting(Vec::<v1::Payment>::new()).is_empty());
    }

    #[test]
    fn addresses_come_newest_first_and_change_last() {
        let address = |index, is_change| v1::WalletAddress { index, is_change, ..Default::default() };
        let (all, _) = page(vec![address(0, true), address(2, false), address(10, false), address(10, true)], 0, "");
        assert_eq!(all, [address(10, false), address(2, false), address(10, true), address(0, true)]);
    }
}

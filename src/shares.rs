//! What many callers share, and how much of it each of them holds.
//!
//! [`Stock::take`] gives a [`Portion`], which goes back when it is dropped. The stock has one bound for all
//! callers together, and a lower one for each, so that no caller can take all that there is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::Caller;

/// An amount of what is shared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    /// In pieces.
    pub count: usize,
    /// In bytes.
    pub bytes: usize,
}

impl Amount {
    /// No bound.
    pub(crate) const ALL: Self = Self {
        count: usize::MAX,
        bytes: usize::MAX,
    };

    /// This percentage of it, rounded down.
    #[must_use]
    pub(crate) fn percent(self, percent: usize) -> Self {
        let part = |whole: usize| whole / 100 * percent + whole % 100 * percent / 100;
        Self {
            count: part(self.count),
            bytes: part(self.bytes),
        }
    }

    /// Both together, if that is within the bound.
    fn plus(self, more: Self, bound: Self) -> Option<Self> {
        let count = self.count.checked_add(more.count)?;
        let bytes = self.bytes.checked_add(more.bytes)?;
        (count <= bound.count && bytes <= bound.bytes).then_some(Self { count, bytes })
    }

    fn minus(self, less: Self) -> Self {
        Self {
            count: self.count.saturating_sub(less.count),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }
}

/// Why there is no portion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// All callers together hold all that there is.
    All,
    /// This caller holds its share.
    Share,
}

/// Something that callers share. Clones are the same stock.
#[derive(Debug, Clone)]
pub(crate) struct Stock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What there is.
    all: Amount,
    /// What one caller may hold of it.
    share: Amount,
    held: Mutex<Held>,
}

/// What is held at the moment. A caller that holds nothing has no entry.
#[derive(Debug, Default)]
struct Held {
    total: Amount,
    by: HashMap<Caller, Amount>,
}

impl Stock {
    /// A stock of which nobody holds anything.
    #[must_use]
    pub(crate) fn new(all: Amount, share: Amount) -> Self {
        let held = Mutex::default();
        Self(Arc::new(Inner { all, share, held }))
    }

    /// Takes a portion for a caller; for none, only the bound of all counts. A caller that holds nothing gets its
    /// portion even when that alone is more than its share.
    ///
    /// # Errors
    /// [`Full`] at once.
    pub(crate) fn take(&self, caller: Option<&Caller>, amount: Amount) -> Result<Portion, Full> {
        let mut held = self.0.held();
        held.add(&self.0, caller, (Amount::default(), amount))?;
        drop(held);
        Ok(Portion {
            stock: Arc::clone(&self.0),
            caller: caller.cloned(),
            amount,
        })
    }

    /// How much is held.
    #[must_use]
    pub(crate) fn held(&self) -> Amount {
        self.0.held().total
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing in here panics half-way.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Adds `more` to a portion of which `own` is held.
    fn add(
        &mut self,
        stock: &Inner,
        caller: Option<&Caller>,
        (own, more): (Amount, Amount),
    ) -> Result<(), Full> {
        let total = self.total.plus(more, stock.all).ok_or(Full::All)?;
        if let Some(caller) = caller {
            match self.by.get_mut(caller) {
                Some(held) => {
                    let (bound, full) = if *held == own {
                        (stock.all, Full::All)
                    } else {
                        (stock.share, Full::Share)
                    };
                    *held = held.plus(more, bound).ok_or(full)?;
                }
                None => {
                    self.by.insert(caller.clone(), more);
                }
            }
        }
        self.total = total;
        Ok(())
    }

    fn give_back(&mut self, caller: Option<&Caller>, amount: Amount) {
        self.total = self.total.minus(amount);
        if let Some(caller) = caller
            && let Some(held) = self.by.get_mut(caller)
        {
            *held = held.minus(amount);
            if *held == Amount::default() {
                self.by.remove(caller);
            }
        }
    }
}

/// A part of a stock, which goes back when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it gives it back"]
pub(crate) struct Portion {
    stock: Arc<Inner>,
    caller: Option<Caller>,
    amount: Amount,
}

impl Portion {
    /// Takes more bytes for it.
    ///
    /// # Errors
    /// [`Full`]; it stays as it was then.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let more = Amount { count: 0, bytes };
        let mut held = self.stock.held();
        held.add(&self.stock, self.caller.as_ref(), (self.amount, more))?;
        drop(held);
        self.amount.bytes += bytes;
        Ok(())
    }
}

impl Drop for Portion {
    fn drop(&mut self) {
        let mut held = self.stock.held();
        held.give_back(self.caller.as_ref(), self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Grantee, Owner};

    fn caller(name: &str) -> Caller {
        Caller::from(&Grantee::Owner(Owner::parse(name).unwrap()))
    }

    fn stock() -> Stock {
        let all = Amount {
            count: 8,
            bytes: 400,
        };
        Stock::new(all, all.percent(25))
    }

    const fn amount(count: usize, bytes: usize) -> Amount {
        Amount { count, bytes }
    }

    #[test]
    fn one_caller_has_its_share_and_the_rest_is_open_to_others() {
        let stock = stock();
        let (alice, bob) = (caller("alice"), caller("bob"));
        let one = stock.take(Some(&alice), amount(1, 60)).unwrap();
        let more = stock.take(Some(&alice), amount(1, 41));
        assert_eq!(more.unwrap_err(), Full::Share);
        let two = stock.take(Some(&alice), amount(1, 40)).unwrap();
        let more = stock.take(Some(&alice), amount(1, 0));
        assert_eq!(more.unwrap_err(), Full::Share);
        let others = stock.take(Some(&bob), amount(2, 100)).unwrap();
        assert_eq!(stock.held(), amount(4, 200));
        drop(one);
        let three = stock.take(Some(&alice), amount(1, 60)).unwrap();
        drop((two, three, others));
        assert_eq!(stock.held(), Amount::default());
        assert!(stock.0.held().by.is_empty());
    }

    #[test]
    fn a_portion_above_the_share_is_given_to_a_caller_that_holds_nothing() {
        let stock = stock();
        let alice = caller("alice");
        let large = stock.take(Some(&alice), amount(1, 400)).unwrap();
        let bob = stock.take(Some(&caller("bob")), amount(1, 1));
        assert_eq!(bob.unwrap_err(), Full::All);
        drop(large);
        let larger = stock.take(Some(&alice), amount(1, 401));
        assert_eq!(larger.unwrap_err(), Full::All);
        assert_eq!(stock.held(), Amount::default());
    }

    #[test]
    fn a_portion_grows_within_the_share_and_alone_beyond_it() {
        let stock = stock();
        let alice = caller("alice");
        let mut one = stock.take(Some(&alice), Amount::default()).unwrap();
        one.grow(60).unwrap();
        one.grow(240).unwrap();
        let two = stock.take(Some(&alice), Amount::default());
        assert_eq!(two.unwrap_err(), Full::Share);
        let mut of_bob = stock.take(Some(&caller("bob")), Amount::default()).unwrap();
        assert_eq!(of_bob.grow(101), Err(Full::All));
        of_bob.grow(100).unwrap();
        assert_eq!(one.grow(1), Err(Full::All));
        drop(one);
        let mut one = stock.take(Some(&alice), Amount::default()).unwrap();
        let mut two = stock.take(Some(&alice), Amount::default()).unwrap();
        two.grow(100).unwrap();
        assert_eq!(one.grow(1), Err(Full::Share));
        drop(two);
        one.grow(200).unwrap();
        assert_eq!(stock.held(), amount(0, 300));
        drop((one, of_bob));
        assert!(stock.0.held().by.is_empty());
    }

    #[test]
    fn who_is_no_caller_has_no_share() {
        let stock = stock();
        let all = stock.take(None, amount(8, 400)).unwrap();
        let more = stock.take(Some(&caller("alice")), amount(1, 0));
        assert_eq!(more.unwrap_err(), Full::All);
        drop(all);
        assert_eq!(stock.held(), Amount::default());
    }

    #[test]
    fn a_percentage_of_a_large_amount_does_not_overflow() {
        let all = amount(usize::MAX, 4095);
        assert_eq!(all.percent(100), all);
        assert_eq!(all.percent(25).bytes, 1023);
    }
}

//! Choices by key and the numbers they are made of.

use expect_test::expect;

use super::*;

/// As golden as the file: a difference changes the data of every run in the field.
#[test]
fn choices_never_change() {
    let choices = Choices::new(7, 1, "000042");
    expect![[r#"
        caption 1 of 5, crop [0.447798, 0.901672, 0.898776, 0.059506], flip false
    "#]]
    .assert_eq(&format!(
        "caption {} of 5, crop {:.6?}, flip {}\n",
        choices.caption(5),
        choices.crop,
        choices.flip
    ));
    let deciding = ["000042", "a", ""].map(|key| deciding_caption(7, key, 5));
    let samples = ["000042", "a", ""].map(|key| sample_draw(7, key));
    expect![[r#"
        deciding [4, 0, 4]
        sample [0.344775765, 0.215822845, 0.043729803]
    "#]]
    .assert_eq(&format!("deciding {deciding:?}\nsample {samples:.9?}\n"));
}

#[test]
fn numbers_are_those_of_splitmix64() {
    let mut random = Random::new(1_234_567);
    let numbers = [random.next(), random.next(), random.below(1000)];
    let unit = random.unit();
    let mut items = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    random.shuffle(&mut items);
    expect![
        "[6457827717110365317, 3203168211198807973, 532] 0.249007657 [0, 5, 9, 6, 7, 2, 1, 4, 3, 8]"
    ]
    .assert_eq(&format!("{numbers:?} {unit:.9} {items:?}"));
}

proptest! {
    #[test]
    fn a_chosen_caption_is_one_of_them(seed: u64, epoch: u64, key: String, captions in 1_usize..9) {
        prop_assert!(Choices::new(seed, epoch, &key).caption(captions) < captions);
        prop_assert!(deciding_caption(seed, &key, captions) < captions);
    }
}

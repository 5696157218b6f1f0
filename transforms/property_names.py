"""The names of properties that stay readable: those whose words are all usual in names of properties.

Anyone who sends an event or changes a profile chooses the names of its properties. A name can therefore be a person's
name or address. Only a vocabulary distinguishes that from "Loyalty Tier".
"""

import re

_FORBIDDEN = re.compile(r"[^\x00-\x7f]|[@%]")  # an address in full-width or percent-encoded characters, for example
_CHUNK = re.compile(r"[A-Za-z0-9]+")
_WORD = re.compile(r"[0-9]+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_MOST_DIGITS = 6  # in a name: seven could be a phone number
_VOCABULARY = """
abandoned accepted accepts access account action active activity add added adding additional address affiliate after
age agent all allow amount android annual anonymous answer any aov api app apple application applied apply appointment
approved area article as asset assigned at attempt attributed attribution audience auto available average avg away
back background badge balance banner barcode base basket batch before begin best billing birth birthdate birthday blog
body bonus book booked booking bot bounce bounced box branch brand browse browsed browser budget build bulk bundle
business button buy buyer by calculated calendar call campaign can cancel canceled cancellation cancelled capacity
card cart cash catalog categories category cause change changed channel charge charged chat check checked checkin
checkout children chimp choice city class clean click clicked client close closed clothing clv code cohort collection
collections color colour comment commerce company compare complete completed condition confirm confirmed consent
consented contact contacted content contest contract conversion converted cookie copy cost count country coupon course
create created creation credit crm csat csv currency current custom customer customers cycle daily dashboard data date
datetime day days deal decline declined default delay deleted delivered delivery demo department deposit description
design desktop destination detail details device difference digital direct discount discounted discounts display
distance distribution domain donated donation done double download downloaded draft due duration early earned edit
edition education eligible email emails employee enabled end ended ends engaged engagement enrolled enter entered
entry error esp estimate estimated eur event events every exchange exclude excluded exit expected expiration expire
expired expires expiry export extended extension extent external extra failed failure family fathers favorite
favourite feature featured fee feedback field fields file filled filter final financial finish finished first fit flag
flavor flavour flow food for form format free frequency friend friendly from fulfilled fulfillment full fund funnel
game gateway gender general generated geo gift giftcard given gmail goal gold google grade grand graph gross group
groups growth guest handle has have header height hidden high hint history hobbies hold holiday home host hot hour
hours house household how html http https icon id identifier ids image images import imported in inbox include
included income incoming industry info information initial inserted insider inspect install installed instance
insurance integration intent interaction interest interested interests internal interval inventory invited invoice ios
ip is item itemprice items job join joined journey key kind kl klaviyo label landing language last lastname lat latest
latitude launch layout lead left legacy length level lifetime limit line lines link linked list lists lng load local
locale location log login logins logo lon long longitude lost low loyalty ltv machine magento mail mailbox mailchimp
mailing manager manual manufacturer map margin marital market marketing mask master match material max maximum mb
measurement media medium member members membership menu merchant message messages meta method metric middle min
minimum minutes missed mms mobile mode model modified money month monthly months most mothers multi name names net
network new newest newsletter next nickname no none normal not note notes notification now nps num number object
occasion of off offer offers office offline on onboarding once one online only open opened opens operating opt opted
optin opting option optional options optout or order ordered orders organic organization origin original os other
others our out outcome outlook outstanding over overall own owner package page pageview paid parent part partial
participant partner party password past path pay paying payment payments payout pending people per percent percentage
period permission person personal pet pets phone photo pickup picture placed plan planned platform play player plus
point points policy popup pos position post postal potential predicted prediction preference preferences preferred
premium presentment prev previous price pricing primary print priority private prize process processed processing
product productid products profession profile profiles profit program progress project promo promotion properties
property provider province public purchase purchased purchases push qty quantity quarter query question questions
queue quiz quote range rank rate rating ratings raw reached read reason rebate receipt receive received receiver
recent recipient recommend recommendation recommended record recovered recovery recurring redeem redeemed redemption
ref reference referral referrals referred referrer referring refund refunded region register registered registration
regular rejected related relationship release remaining reminder remote remove removed renew renewal rental repeat
replacement reply report request requested required reseller reservation reset resolution response restock result
retail return returned returning returns revenue review reviewer reviews reward rewards rfm risk role room route rule
run sale sales salesforce salutation sample satisfaction save saved savings scan schedule scheduled schema scope score
screen script search season seats second section segment segments select selected selling send sender sending sends
sent seo sequence serial series server service services session sessions set setting settings shape share shared ship
shipment shipped shipping shoe shop shopify shopper short show sign signature signed signup silver since site size
sizes skin sku skus slot slug sms sold some sort source space spam spend spending spent sponsor spouse square staff
stage standard star stars start started starts state statement station status step stock stop storage store stored
stores story strategy stream style styles sub subcategory subject submission submit submitted subscribe subscribed
subscriber subscription subtotal success suggested suggestion sum summary supplier support surface survey suspended
sync synced system tab table tag tags target task tax taxable taxes team teaser template tenant term terms test text
the theme thickness ticket tickets tier time times timestamp timezone tip title to today token tone tool top topic
total totals touch tour track tracking trade traffic training transaction transactional transfer transmission travel
treatment trial trigger triggered trip trust try ts type types uid unique unit units unsubscribe unsubscribed update
updated upgrade upgraded upload uploaded upsell url urls usage usd use used user username users uses utc utm uuid
valid validated value values variable variant variants variation vehicle vendor venue verification verified version
via video view viewed viewer views vip visibility visit visited visitor visits voice volume vote voucher waist wallet
wanted warehouse warranty was web webhook webinar website week weekday weekend weekly weeks weight what when where
whether which wholesale widget width window wish wishlist with within won woocommerce word work workflow working xml
year yearly years yes yesterday your zip zone
"""
_WORDS = frozenset(_VOCABULARY.split())


def is_usual(name: str) -> bool:
    """Return whether a name consists of usual words, single letters and short numbers. CamelCase counts as words."""
    if _FORBIDDEN.search(name) or sum(map(str.isdigit, name)) > _MOST_DIGITS:
        return False
    return all(_is_word(chunk) or all(map(_is_word, _WORD.findall(chunk))) for chunk in _CHUNK.findall(name))


def _is_word(text: str) -> bool:
    word = text.lower()
    return len(word) == 1 or word.isdigit() or word in _WORDS or word.removesuffix("s") in _WORDS

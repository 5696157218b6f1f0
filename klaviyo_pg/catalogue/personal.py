"""The kinds of personal data in columns, and the forms of values that identify no person. Knows no tables."""

from enum import Enum


class Personal(Enum):
    """The kind of personal data in a column, and what PERSONAL_DATA does to it: hash | drop."""

    TEXT = "text: hashed as a whole, an email address in lower case | null"
    ADDRESS = "email address: hashed in lower case | null"
    JSON = "document: its texts (like TEXT), long numbers and unusual names hashed one by one | null"
    RECORD = "document that has to stay distinct from others: hashed like JSON | hashed as a whole"
    LABEL = "text that other rows are found by: hashed | hashed"
    PROPERTY_NAME = "name of a property: hashed unless its words are usual | null unless its words are usual"
    CHECKED = "text of the account or of Klaviyo: hashed if it contains an address or a phone number | hashed likewise"
    CURRENCY = "currency: hashed unless it is a code of ISO 4217 | null unless it is one"
    CODE = "number or text: hashed unless it is a short number | null unless it is one"
    EVENT_ID = "ID: hashed if it does not have the form of an event's ID | hashed likewise"
    MESSAGE_ID = "ID in the properties of an event: hashed if it does not have the form of an ID | hashed likewise"
    SENTENCE = "sentence: addresses, long numbers and quotations replaced | replaced likewise"
    NUMBER = "number whose hash could be guessed: null | null"
    KEY_OF_EMAIL = "md5 of an address: md5 of its hash | md5 of its hash"


class Harmless(Enum):
    """The reason why a text column is stored as it is, whatever PERSONAL_DATA says."""

    ID = "Klaviyo assigned the ID"
    KEY = "a digest"
    OWN = "this project wrote it"
    DERIVED = "it is derived in the database from columns that are protected"
    SETTING = "the user chose it in a setting"
    SENDER = "the address or name that the account sends as, which every recipient sees"
    PRODUCT = "the shop's ID of a product, which often looks like a phone number"
    EMPTY = "always null"


EVENT_ID = (
    "^(?:[0-9a-f]{32}"  # a hash
    "|[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}"
    "|[0-9A-Za-z]*(?:[0-9][A-Za-z]|[A-Za-z][0-9]|[A-Z]{2}[a-z]|[a-z][A-Z]{2})[0-9A-Za-z]*"
    "|[0-9A-Za-z]*[a-z][A-Z])$"
)
"""The form of an event's ID: letters and digits, or letters with capitals as no name has them. Not a phone number."""

MESSAGE_ID = "^(?:[0-9]{0,6}|[0-9-]*[A-Za-z_][0-9A-Za-z_-]*)$"
"""The form of the ID of a campaign, a message or a flow: one word, or a number too short for a phone number."""

_CODES = """
AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF
CLF CLP CNH CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD
HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD
MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG
QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD
TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG ZWL
"""
CURRENCIES = frozenset(_CODES.split())
"""The codes of ISO 4217."""

"""The flows: what runs when. Nobody imports them."""

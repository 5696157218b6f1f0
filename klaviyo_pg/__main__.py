"""`python -m klaviyo_pg`: the command `klaviyo-pg`."""

from klaviyo_pg.cli import main

if __name__ == "__main__":
    main()

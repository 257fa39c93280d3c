"""The documentation as a site and a notebook: what of it is made from the code, the configurations and other pages."""

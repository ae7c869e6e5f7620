"""What axe, the checker of accessibility, says of a page in a browser."""


def violations(page):
    """Rules that the page of Playwright breaks, with the elements that break them."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(one["id"], one["impact"], [node["html"][:120] for node in one["nodes"]]) for one in found]

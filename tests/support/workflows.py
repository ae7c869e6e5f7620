"""ComfyUI's two formats of a workflow: what its page saves, and what its HTTP API takes."""

CORE = {"LoadImage": ["image"], "LoadAudio": ["audio"]}  # widgets of the nodes that are not ours, in their order


def api_format(page, nodes):
    """{id: {"class_type", "inputs"}} of a page's workflow, as the page would send it. nodes: {id: declare.Node}."""
    links = {link[0]: [str(link[1]), link[2]] for link in page["links"]}
    prompt = {}
    for node in page["nodes"]:
        kind = node["type"]
        if kind == "MarkdownNote":
            continue
        inputs = {one["name"]: links[one["link"]] for one in node["inputs"] if one.get("link") is not None}
        values = iter(node["widgets_values"])
        if kind in CORE:
            inputs |= dict(zip(CORE[kind], values))
        else:
            for one in nodes[kind].inputs:
                if one.default is None:
                    continue  # comes by a link
                inputs[one.name] = next(values)
                if one.reseed:
                    next(values)  # what becomes of it after a run
            assert next(values, None) is None, f"{kind} has more values than widgets"
        prompt[str(node["id"])] = {"class_type": kind, "inputs": inputs}
    return prompt

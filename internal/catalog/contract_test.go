package catalog_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/lexicon"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/lexicons"
)

// The embedded lexicons hold together by themselves: every file loads and is where
// its NSID says, there are as many of each kind as there should be, and every
// reference leads somewhere.
func TestEmbeddedLexicons(t *testing.T) {
	t.Parallel()
	schemas := lexicon.NewBaseCatalog()
	require.NoError(t, schemas.LoadEmbedFS(lexicons.FS))
	mains := map[string]int{}
	var references []string
	files := 0
	err := fs.WalkDir(lexicons.FS, ".", func(p string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		raw, err := fs.ReadFile(lexicons.FS, p)
		require.NoError(t, err)
		var doc map[string]any
		require.NoError(t, json.Unmarshal(raw, &doc), p)
		id := doc["id"].(string)
		assert.Equal(t, strings.ReplaceAll(id, ".", "/")+".json", p)
		main, _ := doc["defs"].(map[string]any)["main"].(map[string]any)
		kind, _ := main["type"].(string)
		mains[kind]++
		references = append(references, referencesIn(id, doc)...)
		return nil
	})
	require.NoError(t, err)
	assert.Equal(t, 99, files)
	assert.Equal(t, map[string]int{"record": 26, "query": 56, "permission-set": 6, "": 11}, mains)
	require.Greater(t, len(references), 500)
	for _, ref := range references {
		_, err := schemas.Resolve(ref)
		assert.NoError(t, err)
	}
}

// referencesIn lists what a lexicon names: by ref, as union members, and as the
// methods and collections of permissions.
func referencesIn(id string, node any) (found []string) {
	switch node := node.(type) {
	case []any:
		for _, child := range node {
			found = append(found, referencesIn(id, child)...)
		}
	case map[string]any:
		for key, child := range node {
			switch key {
			case "ref":
				if ref, ok := child.(string); ok {
					found = append(found, complete(id, ref))
					continue
				}
			case "refs", "lxm", "collection":
				if list, ok := child.([]any); ok {
					for _, ref := range list {
						found = append(found, complete(id, ref.(string)))
					}
					continue
				}
			}
			found = append(found, referencesIn(id, child)...)
		}
	}
	return found
}

func complete(id, ref string) string {
	if strings.HasPrefix(ref, "#") {
		return id + ref
	}
	return ref
}

// Where the folder with the public contract lies beside the repository, the
// lexicons' structure is compared with it, line by line.
func TestEmbeddedLexiconsKeepTheContract(t *testing.T) {
	t.Parallel()
	const root, contract = "../..", "../shared/contract"
	if _, err := os.Stat(path.Join(root, contract)); err != nil {
		t.Logf("no folder %s beside the repository: TestEmbeddedLexicons alone holds the lexicons to account", contract)
		return
	}
	check := exec.Command("python3", contract+"/lexicon_facts.py", "check", "lexicons", contract+"/facts.tsv")
	check.Dir = root
	out, err := check.CombinedOutput()
	require.NoError(t, err, "%s", out)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	t.Log(lines[len(lines)-1])
}

// The contract's list queries, and by which property each parameter filters.
// +name is required, name[] an array, name* a reference object.
var listFilters = map[string]string{
	"pub.layers.alignment.listAlignments":           "+expression kind",
	"pub.layers.annotation.listAnnotationLayers":    "+expression kind subkind",
	"pub.layers.annotation.listClusterSets":         "+expression kind",
	"pub.layers.changelog.listByCollection":         "+subjectCollection",
	"pub.layers.changelog.listEntries":              "+subject",
	"pub.layers.corpus.listCorpora":                 "+repo domain languages[]",
	"pub.layers.corpus.listMemberships":             "+corpusRef split",
	"pub.layers.eprint.listDataLinks":               "+eprintUri dataKind",
	"pub.layers.eprint.listEprints":                 "+repo eprintIdentifierType linkType",
	"pub.layers.expression.listExpressions":         "+repo kind languages[] parentRef",
	"pub.layers.graph.listGraphEdgeSets":            "+repo edgeType expression",
	"pub.layers.graph.listGraphEdges":               "+repo edgeType source* target*",
	"pub.layers.graph.listGraphNodes":               "+repo nodeType",
	"pub.layers.judgment.listAgreementReports":      "+experimentRef metric",
	"pub.layers.judgment.listExperimentDefs":        "+repo measureType taskType",
	"pub.layers.judgment.listJudgmentSets":          "+experimentRef",
	"pub.layers.media.listMedia":                    "+repo kind",
	"pub.layers.ontology.listOntologies":            "+repo domain",
	"pub.layers.ontology.listTypeDefs":              "+ontologyRef typeKind",
	"pub.layers.persona.listPersonas":               "+repo domain kind",
	"pub.layers.resource.listCollectionMemberships": "+collectionRef",
	"pub.layers.resource.listCollections":           "+repo kind languages[]",
	"pub.layers.resource.listEntries":               "+repo languages[]",
	"pub.layers.resource.listFillings":              "+templateRef strategy",
	"pub.layers.resource.listTemplateCompositions":  "+repo compositionType",
	"pub.layers.resource.listTemplates":             "+repo languages[]",
	"pub.layers.segmentation.listSegmentations":     "+expression",
}

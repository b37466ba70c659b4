#!/usr/bin/perl
# The service directory serves what it was given, takes only what an admin signed on top of the tip, and says why not.
use strict;
use warnings;
use HyperTest;
use HyperSd;
use Test::More;

my $sd = sd_new();
my $daemon = $sd->start_sd;
is($daemon->ready('jsonrpc_port'), $sd->{port}, 'the ready line names the port');
my $fds = $daemon->fds;

# empty
my $answer = $sd->call('getTip');
is($answer->{http}, 200);
ok(exists $answer->{result} && !defined $answer->{result}, 'the tip of nothing is null');
is_deeply($sd->call('getRecords')->{result}, [], 'no records');
is_deeply($sd->call('getEntries')->{result}, [], 'no entries');
is($sd->call('submitRecords', { records => [] })->{result}, 'ok', 'an empty batch is ok');
ok(!defined $sd->call('getTip')->{result}, 'and stores nothing');

# the demo's directory by the demo's commands
my $setup = sub {
	my ($dir, @args) = @_;
	return run_program([ source() . '/tools/sd-setup', $dir, @args ],
		env => { HYPER => program('hyper'), HYPER_SETTINGS => $sd->hyper_settings('hd-1') });
};
my ($status, $out, $err) = $setup->(certs() . '.records', '--reset');
is($status, 0, 'sd-setup sends the certificates') or diag $err;
($status, $out, $err) = $setup->(source() . '/settings/dev/directory/default');
is($status, 0, 'and the operators') or diag $err;
like($out, qr/16 records stored, tip [0-9a-f]{64}/);
my $records = $sd->records;
is(scalar @$records, 28, 'the demo has 28 records (protocol.md 9.1)');
my $tip = $sd->call('getTip')->{result};
is_deeply($tip, $records->[-1], 'the tip is the last record');
my $parent = '';
my $linked = 0;
for my $r (@$records) {
	$linked++ if $r->{parent_hash} eq $parent && $r->{hash} eq rechash_hex($r->{record});
	$parent = $r->{hash};
}
is($linked, 28, 'each names the one before it, and hashes to its hash by a second reading of protocol.md 6.3');
is_deeply($sd->call('getRecords', { after => $records->[25]{hash} })->{result}, [ @$records[ 26, 27 ] ], 'records after a hash');
is_deeply($sd->call('getRecords', { after => $tip->{hash} })->{result}, [], 'none after the tip');
is(scalar @{ $sd->call('getRecords', { after => 'a' x 64 })->{result} }, 28, 'all after an unknown hash');
is(scalar @{ $sd->call('getRecords', { after => undef })->{result} }, 28, 'null is as if it was not there');
for my $bad ('x', 'A' x 64, 'a' x 63, 7, []) {
	$answer = $sd->call('getRecords', { after => $bad });
	is($answer->{error}{code}, -32602, 'bad `after`: ' . json_text($bad));
	is($answer->{http}, 400);
}
is($answer->{error}{data}{data}{after}, "regex '^([a-f0-9]{64}|)\$' did not match", 'as the reference says it');

# entries
my $entries = $sd->call('getEntries')->{result};
is(scalar @$entries, 12, '12 operators');
my $entry = $sd->call('getEntry', { name => 'hd-1' })->{result};
is_deeply([ sort keys %$entry ], [ qw(certificates channels groups name preferences properties records services settings) ], 'all keys of an entry');
is_deeply($entry->{groups}, ['health-departments']);
is($entry->{channels}[0]{settings}, undef, 'a channel without settings has null');
is(scalar @{ $entry->{certificates} }, 2);
is(scalar @{ $entry->{records} }, 5, 'with the records that made it');
is($sd->call('getEntry', { name => 'demo-app' })->{result}{groups}, undef, 'null where nothing is set');
$answer = $sd->call('getEntry', { name => 'nope' });
is($answer->{error}{code}, 404);
is($answer->{error}{message}, 'not found');
is($sd->call('getEntry', {})->{error}{code}, -32602, 'getEntry needs a name');
is($sd->call('deleteAll', {})->{error}{code}, -32601, 'no other method');

# refused, one by one: nothing of it stays
my $refused = sub {
	my ($name, $like, @records) = @_;
	my $a = $sd->submit(@records);
	is($a->{http}, 400, "$name: refused");
	is($a->{error}{code}, -32603, "$name: -32603");
	like($a->{error}{message}, $like, "$name: says why");
	is_deeply($sd->call('getTip')->{result}, $tip, "$name: the tip is where it was");
};
my $malformed = sub {
	my ($name, $like, @records) = @_;
	my $a = $sd->submit(@records);
	is($a->{error}{code}, -32602, "$name: -32602");
	like(json_text($a->{error}{data} // ''), $like, "$name: says why");
	is_deeply($sd->call('getTip')->{result}, $tip, "$name: the tip is where it was");
};
my $good = $sd->record;
my $twist = sub { my ($change) = @_; my $copy = json_value(json_text($good)); $change->($copy); return $copy };

$refused->('wrong hash', qr/records\[0\]: wrong hash/, $twist->(sub { $_[0]{hash} = 'b' x 64 }));
$refused->('changed record', qr/wrong hash/, $twist->(sub { $_[0]{record}{data} = ['h'] }));
$refused->('wrong signature', qr/wrong signature/, $twist->(sub { $_[0]{signature}{s} = '123456789012' }));
$refused->('signature of another record', qr/wrong signature/, $twist->(sub { $_[0]{signature} = $tip->{signature} }));
$refused->('signer not sd-admin', qr/sd-admin/, $sd->record(who => 'hd-2'));
$refused->('signer not the pinned one', qr/pins another signing certificate/, $sd->record(who => [ 'hd-1', 'hd-1-sign-alt' ]));
$refused->('stale parent', qr/stale parent.*fetch the tip/, $sd->record(parent => $records->[20]{hash}));
$refused->('unknown parent', qr/stale parent/, $sd->record(parent => 'c' x 64));
$refused->('too old', qr/within 5 minutes/, $sd->record(at => time - 400));
$refused->('too far ahead', qr/within 5 minutes/, $sd->record(at => time + 400));
$refused->('before its parent', qr/before that of the parent/, $sd->record(at => time - 200));
$refused->('a root that is not later', qr/must be later/, $sd->record(parent => '', created_at => $records->[0]{record}{created_at}, data => ['other']));
$refused->('known hash, other parent', qr/stored already, and it is not this one/,
	do { my $copy = json_value(json_text($records->[3])); $copy->{parent_hash} = $tip->{hash}; $copy });
$refused->('known hash, other content', qr/stored already, and it is not this one/,
	do { my $copy = json_value(json_text($records->[3])); $copy->{record}{name} = 'op-9'; $copy });
$refused->('a good one and then a bad one', qr/records\[1\]: /, $good, $twist->(sub { $_[0]{parent_hash} = $good->{hash}; $_[0]{hash} = 'd' x 64 }));
$refused->('a root behind a new record', qr/must be the first new record/, $good, $sd->record(parent => '', data => ['r']));

$malformed->('no list', qr/expected a list/) for ();
is($sd->call('submitRecords', {})->{error}{code}, -32602, 'submitRecords needs a list');
is($sd->call('submitRecords', { records => {} })->{error}{code}, -32602, 'and no map');
$malformed->('a number', qr/records\[0\]/, 7);
$malformed->('no record', qr/record: expected an object/, $twist->(sub { delete $_[0]{record} }));
$malformed->('no signature', qr/signature: expected/, $twist->(sub { delete $_[0]{signature} }));
$malformed->('short hash', qr/hash: expected/, $twist->(sub { $_[0]{hash} = 'abc' }));
$malformed->('unknown section', qr/section: expected/, $twist->(sub { $_[0]{record}{section} = 'nope' }));
$malformed->('name with a space', qr/name: expected/, $twist->(sub { $_[0]{record}{name} = 'a b' }));
$malformed->('map inside settings', qr/no object inside settings/,
	$twist->(sub { @{ $_[0]{record} }{qw(section data)} = ('settings', [ { settings => { a => { b => 1 } } } ]) }));
$malformed->('a tag word', qr/could mean something else/, $twist->(sub { $_[0]{record}{data} = ['list'] }));
$malformed->('`string` in a value', qr/could mean something else/, $twist->(sub { $_[0]{record}{data} = ['xstringy'] }));
$malformed->('second of two', qr/records\[1\]/, $good, {});

# accepted: unknown keys dropped, defaults filled in, once
$good = $sd->record(section => 'services', data => [ { name => 's' } ]);
$good->{extra} = 1;
$good->{record}{extra} = 1;
$good->{record}{data}[0]{extra} = 1;
is($sd->submit($good)->{result}, 'ok', 'a good record is taken');
$tip = $sd->call('getTip')->{result};
is_deeply($tip->{record}{data}, [ { name => 's', permissions => [], methods => [] } ], 'in its closed form');
is_deeply([ sort keys %$tip ], [qw(hash parent_hash record signature)]);
is($sd->submit($good)->{result}, 'ok', 'sent again it is ok');
is(scalar @{ $sd->records }, 29, 'and stored once');
is($sd->submit($records->[0])->{result}, 'ok', 'so is a replayed root');
is($sd->submit(@$records, $good)->{result}, 'ok', 'and the whole chain');
is(scalar @{ $sd->records }, 29, 'nothing was stored twice');
my $next = $sd->record;
is($sd->submit($good, $next, $next)->{result}, 'ok', 'a batch of old, new and the same again');
is(scalar @{ $sd->records }, 30);

# a reset replaces the directory; what was replaced stays known
my $root = $sd->record(parent => '', name => 'op-7');
is($sd->submit($root)->{result}, 'ok', 'a later root begins a new chain');
is_deeply([ map { $_->{hash} } @{ $sd->records } ], [ $root->{hash} ], 'and is alone in it');
is_deeply([ map { $_->{name} } @{ $sd->call('getEntries')->{result} } ], ['op-7']);
is($sd->submit($records->[0])->{result}, 'ok', 'an old root replayed is known');
is($sd->submit($records->[5])->{result}, 'ok');
is_deeply([ map { $_->{hash} } @{ $sd->records } ], [ $root->{hash} ], 'and changes nothing');

# the verbs
($status, $out, $err) = $sd->cli('hd-2', 'records');
is($status, 0) or diag $err;
is(scalar @{ json_value($out) }, 1, 'hyper sd records');
($status, $out) = $sd->cli('hd-2', 'records', '--after', $root->{hash});
is_deeply(json_value($out), [], 'hyper sd records --after');
is(($sd->cli('hd-2', 'records', '--after', 'x'))[0], 64, 'a wrong --after is wrong usage');
($status, $out) = $sd->cli('hd-2', 'entries', 'op-7');
is(json_value($out)->{name}, 'op-7', 'hyper sd entries NAME');
is(scalar @{ json_value(($sd->cli('hd-2', 'entries'))[1]) }, 1, 'hyper sd entries');
($status, $out, $err) = $sd->cli('hd-2', 'entries', 'nope');
is($status, 1);
like($err, qr/not found/);
my $file = write_file(tmp() . '/one.json', json_text({ records => [ { name => 'op-8', section => 'groups', data => ['x'] } ] }));
($status, $out, $err) = $sd->cli('hd-2', 'submit-records', $file);
is($status, 1, 'hd-2 may not submit');
like($err, qr/sd-admin/, 'and learns why before anything is sent');
($status, $out, $err) = $sd->cli('hd-1', 'submit-records', write_file(tmp() . '/bad.json', '{"records": [{"name": "a"}]}'));
is($status, 1);
like($err, qr/bad\.json: records\[0\]: section: expected/, 'a bad file is named');
($status, $out, $err) = $sd->cli('hd-1', 'submit-records', $file);
is($status, 0, 'hd-1 may') or diag $err;
for my $verb ([], ['--help'], [ 'submit-records', '--help' ], [ 'records', '--help' ], [ 'entries', '--help' ], [ 'sign', '--help' ]) {
	($status, $out) = $sd->cli('hd-1', @$verb);
	is($status, @$verb ? 0 : 64, "hyper sd @$verb");
}

# who may connect
my $no_cert = rpc($sd->{url}, 'getTip', {});
isnt($no_cert->{curl}, 0, 'without a certificate there is no connection');
is($sd->call('getTip', {}, cert => 'demo-app')->{http}, 200, 'any certificate of the CA may read');

# long and hostile bodies
for my $body ('', '[]', '{', '[' x 10000, 'x' x 5_000_000, '{"jsonrpc":"2.0","method":"getTip","method":"x","params":{}}') {
	my $a = $sd->call('', undef, body => $body);
	ok($a->{http} =~ /^4/, 'refused: ' . substr($body, 0, 20));
}
is($sd->call('getTip')->{http}, 200, 'serves on');
ok(wait_until(sub { $daemon->fds <= $fds }), 'no descriptor is left behind') or diag $daemon->fds . " > $fds";

is($daemon->stop, 0, 'TERM stops it cleanly');
($status, $out, $err) = $sd->cli('hd-1', 'records');
is($status, 69, 'without sd: exit status 69');
like($err, qr/localhost:$sd->{port}/, 'naming what was dialled');
hyper_done();
